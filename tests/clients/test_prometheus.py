"""Every query that users have returns data from a real Prometheus that scrapes nothing but tokenglass."""

import threading

import openai
import pytest

from prometheus import ROOT, Prometheus, check_metrics, wait_scrapes
from support import HELLO, PLAIN, get_text

pytestmark = [
    pytest.mark.metrics,
    pytest.mark.skipif(not ROOT.is_dir(), reason="PROMETHEUS_DIR is not set"),
]

QUANTILES = [
    f"histogram_quantile({q}, rate(vllm:{family}_seconds_bucket[5m]))"
    for family in ("e2e_request_latency", "time_to_first_token")
    for q in (0.5, 0.95, 0.99)
]
QUERIES = [
    "DCGM_FI_DEV_GPU_UTIL",
    "avg_over_time(DCGM_FI_DEV_GPU_UTIL[5m])",
    "DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE) * 100",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_MEM_CLOCK",
    "DCGM_FI_DEV_PCIE_TX_THROUGHPUT",
    "DCGM_FI_DEV_PCIE_RX_THROUGHPUT",
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
    "rate(vllm:e2e_request_latency_seconds_count[1m])",
    *QUANTILES,
    "rate(vllm:generation_tokens_total[1m])",
    "rate(vllm:prompt_tokens_total[1m])",
    "vllm:gpu_cache_usage_perc",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "rate(vllm:num_preemptions_total[5m])",
    "vllm:time_per_output_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket",
    "predict_linear(vllm:gpu_cache_usage_perc[10m], 300)",
    "vllm_service_up",
    "vllm_model_loaded",
    "vllm_available_models_total",
    "vllm_health_check_latency_seconds_count",
    "rate(vllm_probe_request_success_total[5m])",
    "vllm_probe_request_error_total",
    "vllm_max_model_len",
    "vllm_model_info",
    "vllm_exporter_scrape_duration_seconds",
    "rate(vllm_request_success_total[5m])",
    "vllm_request_error_total",
    "histogram_quantile(0.95, rate(vllm_input_tokens_per_request_bucket[5m]))",
    "histogram_quantile(0.95, rate(vllm_output_tokens_per_request_bucket[5m]))",
]


@pytest.fixture(scope="module", params=["new", "old"])
def prometheus(request, admin, tmp_path_factory):
    """Prometheus 3.x and Debian's 2.42."""
    server = Prometheus(request.param, admin.removeprefix("http://"), tmp_path_factory.mktemp(request.param))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def scraped(prometheus, proxy):
    """The same, once it has seen requests come and go."""
    client = openai.OpenAI(base_url=f"{proxy}/v1", api_key="none", max_retries=0)
    ended = threading.Event()

    def traffic():
        while not ended.is_set():
            for _ in client.chat.completions.create(
                model="tiny", messages=HELLO, max_tokens=12, stream=True, extra_body={**PLAIN, "ignore_eos": True}
            ):
                pass
            client.completions.create(model="tiny", prompt="a", max_tokens=4)
            with pytest.raises(openai.NotFoundError):
                client.completions.create(model="no-such-model", prompt="a")

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        # Two for a rate, the others so that the slowest poller has been there too.
        wait_scrapes(prometheus, 12)
    finally:
        ended.set()
        thread.join()
    wait_scrapes(prometheus, 2)
    return prometheus


@pytest.mark.parametrize("query", QUERIES)
def test_the_query_returns_data(scraped, query):
    assert scraped.numbers(query), f"{query}: {scraped.query(query)[:3]}"


def test_the_scrape_is_clean(scraped):
    (target,) = scraped.targets()
    assert (target["health"], target["lastError"]) == ("up", "")
    assert scraped.query("min_over_time(up[1h])")[0][1] == 1
    log = scraped.log.read_text()
    for word in ("duplicate", "out of order", "out-of-order", "Append failed", "invalid"):
        assert word not in log, log[-2000:]


def test_units_and_labels(scraped):
    """What a percentage, a mebibyte and a watt are supposed to be."""
    ((labels, used),) = scraped.query('DCGM_FI_DEV_FB_USED{gpu="0"}')
    assert {"gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname", "DCGM_FI_DRIVER_VERSION"} <= labels.keys()
    ((_, free),) = scraped.query('DCGM_FI_DEV_FB_FREE{gpu="0"}')
    assert 1_000 < used + free < 1_000_000, "MiB"
    assert 0 <= scraped.query('DCGM_FI_DEV_GPU_UTIL{gpu="0"}')[0][1] <= 100
    assert scraped.query("vllm_service_up")[0][1] == scraped.query("vllm_model_loaded")[0][1] == 1


@pytest.mark.parametrize("version", ["new", "old"])
def test_promtool_has_nothing_against_our_own_families(admin, version):
    """Not of vLLM's and DCGM's: those names are theirs."""
    _, _, text = get_text(admin, "/metrics")
    own, keep = [], False
    for line in text.splitlines(keepends=True):
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            keep = name.startswith(("vllm_", "tokenglass_", "process_"))
        if keep:
            own.append(line)
    # A gauge of that name is what users have.
    complaints = [line for line in check_metrics(version, "".join(own)) if not line.startswith("vllm_available_models_total ")]
    assert not complaints
