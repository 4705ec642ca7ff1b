# The migrations, as a job: it ends. Made like relay.Dockerfile, where the steps are explained.
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
COPY migrations/pyproject.toml migrations/
RUN [".uv/bin/uv", "sync", "--frozen", "--no-dev", "--package=outbox-migrations", "--extra=psycopg", "--no-install-workspace"]
COPY migrations migrations
RUN [".uv/bin/uv", "sync", "--frozen", "--no-dev", "--package=outbox-migrations", "--extra=psycopg", "--no-editable", "--offline"]
RUN [".uv/bin/uv", "export", "--frozen", "--no-dev", "--package=outbox-migrations", "--extra=psycopg", \
     "--format=cyclonedx1.5", "--quiet", "--output-file=/opt/outbox/sbom.cdx.json"]

FROM ${PYTHON_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="outbox-migrate" \
      org.opencontainers.image.description="Migrates the Postgres schemas of the Celery outbox and inbox" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/outbox /opt/outbox
ENV PATH=/opt/outbox/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
ENTRYPOINT ["outbox-migrate"]
CMD ["up"]
