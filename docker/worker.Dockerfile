# The worker, and with another command any other part of pgflywheel's command line.
#
#   docker build -t pgflywheel -f docker/worker.Dockerfile .
#   docker run -e PGFLYWHEEL_DSN=postgresql://... pgflywheel                the worker
#   docker run -e PGFLYWHEEL_DSN=postgresql://... pgflywheel db upgrade     a command, once
#
# Without access to a package index: run docker/wheelhouse.sh first, then build as above.
FROM debian:trixie-slim AS build

RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates python3 python3-venv; \
    rm -rf /var/lib/apt/lists/*

# pip reads these names from the environment; unset, it asks PyPI.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST

# What workers can do beyond SQL: `analysis` forms clusters at night and compares weeks, and weighs some 200 MB;
# `embed` (sentence-transformers) is not in it. Without any: --build-arg EXTRAS=checks,judge
ARG EXTRAS=checks,judge,analysis

WORKDIR /src
COPY docker/wheels /wheels
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY sql sql
COPY migrations migrations
RUN set -eu; \
    python3 -m venv /opt/pgflywheel; \
    if ls /wheels/*.whl >/dev/null 2>&1; then \
      set -- --no-index --find-links=/wheels "pgflywheel[$EXTRAS]"; \
    else \
      set -- ".[$EXTRAS]"; \
    fi; \
    /opt/pgflywheel/bin/pip install --no-cache-dir --disable-pip-version-check "$@"


FROM debian:trixie-slim

RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates python3; \
    rm -rf /var/lib/apt/lists/*; \
    useradd --user-group --uid 10001 --create-home flywheel

COPY --from=build /opt/pgflywheel /opt/pgflywheel

ENV PATH=/opt/pgflywheel/bin:$PATH \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

USER flywheel
WORKDIR /home/flywheel
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9187/health', timeout=4)"]

ENTRYPOINT ["pgflywheel"]
CMD ["worker", "run", "--metrics-port", "9187"]
