# The example shop of examples/shop: its HTTP API, and with another command its workers.
# Made like relay.Dockerfile, where the steps are explained.
ARG PYTHON_IMAGE=python:3.13.14-slim-trixie

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
ENV UV_PROJECT_ENVIRONMENT=/opt/shop \
    UV_PYTHON_DOWNLOADS=never \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1
COPY uv.lock pyproject.toml ./
COPY tools/bootstrap_uv.py tools/
RUN ["python", "tools/bootstrap_uv.py"]
COPY producer/pyproject.toml producer/
COPY worker/pyproject.toml worker/
RUN [".uv/bin/uv", "sync", "--frozen", "--only-group=shop", "--no-install-workspace"]
COPY producer producer
COPY worker worker
RUN [".uv/bin/uv", "sync", "--frozen", "--only-group=shop", "--no-editable", "--offline"]

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/shop /opt/shop
COPY examples/shop/shop /opt/shop/app/shop
ENV PATH=/opt/shop/bin:$PATH \
    PYTHONPATH=/opt/shop/app \
    PYTHONDONTWRITEBYTECODE=1
USER 10002:10002
EXPOSE 8000
CMD ["waitress-serve", "--listen=0.0.0.0:8000", "--call", "shop.web:open_shop"]
