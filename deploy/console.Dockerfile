# The console. Made like relay.Dockerfile, where the steps are explained. It listens for everybody, so
# it does not start without people who sign in: OUTBOX_CONSOLE_PEOPLE_FILE, OUTBOX_CONSOLE_USER_HEADER or
# OUTBOX_CONSOLE_OIDC_ISSUER. The relay is there for its command `doctor`, which a page runs.
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
COPY console/pyproject.toml console/
COPY relay/pyproject.toml relay/
RUN [".uv/bin/uv", "sync", "--frozen", "--no-dev", "--package=outbox-console", "--all-extras", "--no-install-workspace"]
COPY console console
COPY relay relay
RUN [".uv/bin/uv", "sync", "--frozen", "--no-dev", "--package=outbox-console", "--all-extras", "--no-editable", "--offline"]
RUN [".uv/bin/uv", "export", "--frozen", "--no-dev", "--package=outbox-console", "--all-extras", \
     "--format=cyclonedx1.5", "--quiet", "--output-file=/opt/outbox/sbom.cdx.json"]

FROM ${PYTHON_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="outbox-console" \
      org.opencontainers.image.description="Shows a Celery outbox in a browser, live" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/outbox /opt/outbox
ENV PATH=/opt/outbox/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    OUTBOX_CONSOLE_ADDRESS=0.0.0.0:9465
USER 10001:10001
EXPOSE 9465
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9465/healthz', timeout=3)"]
ENTRYPOINT ["outbox-console"]
