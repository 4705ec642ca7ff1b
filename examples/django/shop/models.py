"""What the shop keeps."""

from django.db import models


class Order(models.Model):
    """An order somebody placed."""

    item = models.CharField(max_length=100)
    invoiced = models.BooleanField(default=False)
