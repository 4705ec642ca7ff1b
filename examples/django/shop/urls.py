"""One view: place an order."""

from django.contrib import admin
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from shop.models import Order
from shop.tasks import send_invoice


@csrf_exempt
def place_order(request: HttpRequest) -> JsonResponse:
    """Store the order and its task together, or neither."""
    with transaction.atomic():
        order = Order.objects.create(item=request.POST["item"])
        result = send_invoice.delay(order.id)
        if "reject" in request.GET:
            raise ValueError("sold out")
    return JsonResponse({"order": order.id, "task": result.id})


urlpatterns = [
    path("orders/", place_order),
    path("admin/", admin.site.urls),
]
