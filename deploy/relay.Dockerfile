# The relay: what the lock file names, each file with its hash, and nothing else; no root, no shell.
# Built from the root of the checkout: make image.
ARG PYTHON_IMAGE=python:3.13.14-slim-trixie

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
ENV UV_PROJECT_ENVIRONMENT=/opt/outbox \
    UV_PYTHON_DOWNLOADS=never \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1
COPY uv.lock pyproject.toml ./
COPY tools/bootstrap_uv.py tools/
RUN ["python", "tools/bootstrap_uv.py"]
COPY relay/pyproject.toml relay/
RUN [".uv/bin/uv", "sync", "--frozen", "--no-dev", "--package=outbox-relay", "--extra=otel", "--no-install-workspace"]
# What is left needs no network: anything that is not in the lock file would fail here.
COPY relay relay
RUN [".uv/bin/uv", "sync", "--frozen", "--no-dev", "--package=outbox-relay", "--extra=otel", "--no-editable", "--offline"]
RUN [".uv/bin/uv", "export", "--frozen", "--no-dev", "--package=outbox-relay", "--extra=otel", \
     "--format=cyclonedx1.5", "--quiet", "--output-file=/opt/outbox/sbom.cdx.json"]

FROM ${PYTHON_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="outbox-relay" \
      org.opencontainers.image.description="Publishes a Postgres outbox to RabbitMQ or Redis, confirmed" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/outbox /opt/outbox
ENV PATH=/opt/outbox/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    OUTBOX_HTTP_ADDRESS=0.0.0.0:9464
# A number, because Kubernetes cannot tell of a name whether it is root.
USER 10001:10001
EXPOSE 9464
STOPSIGNAL SIGTERM
# A tenth of a second of CPU each time: no driver is loaded for it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["outbox-relay", "health"]
ENTRYPOINT ["outbox-relay"]
CMD ["run"]
