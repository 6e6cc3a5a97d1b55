# The labeling server: no torch, no compiler, not root. docs/labeling.md says how to run it.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/triphase \
    && /opt/triphase/bin/pip install --no-cache-dir -c constraints.txt ".[label,postgres]"

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin triphase \
    && install -d -o triphase -g triphase -m 700 /data
COPY --from=build /opt/triphase /opt/triphase
COPY deploy/entrypoint.sh deploy/health.py /opt/triphase/share/
ENV PATH=/opt/triphase/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER triphase
WORKDIR /data
VOLUME /data
EXPOSE 8400
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=4 \
    CMD ["python", "/opt/triphase/share/health.py"]
ENTRYPOINT ["sh", "/opt/triphase/share/entrypoint.sh"]
CMD ["--help"]
