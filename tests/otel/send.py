"""Sends traces and metrics with the OpenTelemetry SDK for Python and prints what it sent as JSON.

usage: send.py grpc|http ENDPOINT TRACES    ENDPOINT is http://host:port; gzip is on. Every export must succeed.
Services are shop-TRANSPORT and stock-TRANSPORT. A trace is: shop SERVER, its CLIENT child, stock's SERVER below that.
The first trace fails in stock with 500.
"""

import json
import sys

from opentelemetry import context, trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode

transport, endpoint, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
if transport == "grpc":
    from grpc import Compression
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    spans_to = metrics_to = {"endpoint": endpoint, "insecure": True, "compression": Compression.Gzip}
elif transport == "http":
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    spans_to = {"endpoint": endpoint + "/v1/traces", "compression": Compression.Gzip}
    metrics_to = {"endpoint": endpoint + "/v1/metrics", "compression": Compression.Gzip}
else:
    sys.exit(f"transport {transport}: want grpc or http")

exports, failures = [], []


class Spans(OTLPSpanExporter):
    def export(self, *args, **kwargs):
        result = super().export(*args, **kwargs)
        (exports if result is SpanExportResult.SUCCESS else failures).append("spans")
        return result


class Metrics(OTLPMetricExporter):
    def export(self, *args, **kwargs):
        result = super().export(*args, **kwargs)
        (exports if result is MetricExportResult.SUCCESS else failures).append("metrics")
        return result


def tracer(service):
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(Spans(**spans_to)))
    return provider, provider.get_tracer("send")


shop_provider, shop = tracer(f"shop-{transport}")
stock_provider, stock = tracer(f"stock-{transport}")
reader = PeriodicExportingMetricReader(Metrics(**metrics_to), export_interval_millis=3_600_000)
meters = MeterProvider(
    metric_readers=[reader],
    resource=Resource.create({"service.name": f"shop-{transport}"}),
    views=[View(instrument_name="stock.wait", aggregation=ExponentialBucketHistogramAggregation())],
)
meter = meters.get_meter("send")
orders: Counter = meter.create_counter("shop.orders", unit="{order}")
took: Histogram = meter.create_histogram("shop.took", unit="s")
wait: Histogram = meter.create_histogram("stock.wait", unit="s")

ids = []
route = {"http.route": "/orders", "http.request.method": "POST"}
for i in range(count):
    failed = i == 0
    status = {"http.response.status_code": 500 if failed else 200}
    # Every trace has its own root, whatever was current.
    with shop.start_as_current_span("POST /orders", context.Context(), SpanKind.SERVER, route | status) as root:
        ids.append(trace.format_trace_id(root.get_span_context().trace_id))
        with shop.start_as_current_span("POST", kind=SpanKind.CLIENT, attributes=status):
            with stock.start_as_current_span("POST /reserve", kind=SpanKind.SERVER, attributes=status) as last:
                if failed:
                    last.set_status(Status(StatusCode.ERROR, "no stock"))
    orders.add(2, {"kind": "book"})
    took.record(0.01 * (i + 1), {"kind": "book"})
    wait.record(0.001 * (i + 1), {"kind": "book"})

for provider in (shop_provider, stock_provider, meters):
    if not provider.force_flush(30_000):
        failures.append("flush")
    provider.shutdown()
if failures or "spans" not in exports or "metrics" not in exports:
    sys.exit(f"exports that failed: {failures}, that succeeded: {exports}")
print(json.dumps({"traces": ids, "failed": ids[0]}))
