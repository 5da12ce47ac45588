"""Prometheus' configuration and the alert rules: each alert fires when it should, and not before."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.support.documents import ROOT

PROMTOOL = shutil.which("promtool")
RULES = ROOT / "config" / "grafana" / "alerts.yaml"
HEALTHY = {  # a late job, a failed window and a rate limit that are too short for an alert
    'flow_outcomes_database_up{instance="a"}': "1x600 0 1x1800",
    'flow_outcomes_database_up{instance="b"}': "1x2400",
    'flow_outcomes_status_age_seconds{instance="a"}': "0x600 700x5 0x1800",
    'flow_outcomes_newest_complete_age_seconds{org="acme",job="daily"}': "86400x2400",
    'flow_outcomes_windows{org="acme",job="daily",state="failed"}': "0x60 1x40 0x2300",
    'flow_outcomes_gaps{org="acme",job="daily"}': "0x60 1x700 0x1600",
    'flow_outcomes_org_held{org="acme"}': "1x60 0x3 1x2300",
    'flow_outcomes_breaker_state{org="acme"}': "0x60 2x10 0x2300",
    'flow_outcomes_limit_hold_seconds{org="acme"}': "0x60 60x20 0x2300",
    'flow_outcomes_rejected_entries_total{org="acme",job="daily"}': "0x2400",
}
ORG, JOB = {"org": "acme"}, {"org": "acme", "job": "daily"}

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")


class Trouble(NamedTuple):
    """What makes an alert fire.

    Attributes:
        series: the input series, a value per minute.
        at: when the alert has fired.
        labels: the alert's labels.
    """

    series: dict[str, str]
    at: str
    labels: dict[str, str]


TROUBLES = {
    "FlowOutcomesBehind": Trouble(
        {'flow_outcomes_newest_complete_age_seconds{org="acme",job="daily"}': "129000+60x100"}, "50m", JOB
    ),
    "FlowOutcomesWindowFailed": Trouble(  # two processes report the same one
        {
            f'flow_outcomes_windows{{org="acme",job="daily",state="failed",instance="{each}"}}': "1x100"
            for each in "ab"
        },
        "61m",
        JOB,
    ),
    "FlowOutcomesGapsRemain": Trouble(
        {
            'flow_outcomes_gaps{org="acme",job="daily",instance="a"}': "1x400",  # this process is replaced
            'flow_outcomes_gaps{org="acme",job="daily",instance="b"}': "_x399 1x400",
        },
        "721m",
        JOB,
    ),
    "FlowOutcomesNoDaemon": Trouble({"flow_outcomes_database_up": "1x10 stale"}, "17m", {}),
    "FlowOutcomesOrgNotHeld": Trouble({'flow_outcomes_org_held{org="acme"}': "0x20"}, "6m", ORG),
    "FlowOutcomesBreakerOpen": Trouble({'flow_outcomes_breaker_state{org="acme"}': "2x30"}, "16m", ORG),
    "FlowOutcomesRateLimited": Trouble({'flow_outcomes_limit_hold_seconds{org="acme"}': "600x60"}, "31m", ORG),
    "FlowOutcomesEntriesRejected": Trouble(  # the counter appears with the first entries
        {'flow_outcomes_rejected_entries_total{org="acme",job="daily"}': "_x120 3x60"}, "125m", JOB
    ),
    "FlowOutcomesDatabaseUnavailable": Trouble({"flow_outcomes_database_up": "0x20"}, "3m", {}),
    "FlowOutcomesStatusStale": Trouble({"flow_outcomes_status_age_seconds": "500+60x40"}, "15m", {}),
}


def promtool(*words: str) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def check_rules(folder: Path, series: dict[str, str], *expectations: dict[str, object]) -> None:
    """Evaluate the rules with promtool over the series, a value per minute."""
    tree = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": list(expectations),
            }
        ],
    }
    (folder / "tests.yaml").write_text(yaml.safe_dump(tree))
    promtool("test", "rules", str(folder / "tests.yaml"))


def firing(at: str, *alerts: dict[str, str]) -> dict[str, object]:
    """Return the expectation that exactly these alerts fire at this time."""
    labels = [", ".join(f'{label}="{value}"' for label, value in sorted(alert.items())) for alert in alerts]
    expression = 'count by (alertname, org, job) (ALERTS{alertstate="firing"})'
    samples = [{"labels": f"{{{each}}}", "value": 1} for each in labels]
    return {"expr": expression, "eval_time": at, "exp_samples": samples}


def test_the_configuration(tmp_path: Path) -> None:
    """Prometheus accepts the configuration in compose.yaml."""
    tree = yaml.safe_load((ROOT / "compose.yaml").read_text())
    (tmp_path / "prometheus.yml").write_text(tree["configs"]["prometheus"]["content"])
    (tmp_path / "alerts.yaml").write_text(RULES.read_text())
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_every_alert_is_tested() -> None:
    """Every alert rule has a case."""
    rules = yaml.safe_load(RULES.read_text())["groups"]
    assert [rule["alert"] for group in rules for rule in group["rules"]] == list(TROUBLES)


@pytest.mark.parametrize("name", TROUBLES)
def test_an_alert_fires(tmp_path: Path, name: str) -> None:
    """An alert fires once, even if several processes report the cause."""
    series, at, labels = TROUBLES[name]
    up = {} if "database_up" in str(series) else {"flow_outcomes_database_up": "1x2400"}
    check_rules(tmp_path, {**up, **series}, firing(at, {"alertname": name, **labels}))


def test_no_alert_fires_for_short_troubles(tmp_path: Path) -> None:
    """Short troubles, a daily job's usual age and a restart fire no alert."""
    check_rules(tmp_path, HEALTHY, *(firing(f"{minute}m") for minute in (1, 59, 99, 200, 603, 759, 765, 2000)))
