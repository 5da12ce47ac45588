"""What Prometheus makes of its configuration and of the alert rules: each fires when it should, and not before."""

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
HEALTHY = {  # a job that was late, missed a window and held back for less time than anybody need know
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

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not here: apt-get install prometheus")


class Trouble(NamedTuple):
    """What makes an alert fire: series, when it is told, and of whom."""

    series: dict[str, str]
    at: str
    of: dict[str, str]


TROUBLES = {
    "FlowOutcomesBehind": Trouble(
        {'flow_outcomes_newest_complete_age_seconds{org="acme",job="daily"}': "129000+60x100"}, "50m", JOB
    ),
    "FlowOutcomesWindowFailed": Trouble(  # two processes tell the same one
        {
            f'flow_outcomes_windows{{org="acme",job="daily",state="failed",instance="{each}"}}': "1x100"
            for each in "ab"
        },
        "61m",
        JOB,
    ),
    "FlowOutcomesGapsRemain": Trouble(
        {
            'flow_outcomes_gaps{org="acme",job="daily",instance="a"}': "1x400",  # and is replaced
            'flow_outcomes_gaps{org="acme",job="daily",instance="b"}': "_x399 1x400",
        },
        "721m",
        JOB,
    ),
    "FlowOutcomesNoDaemon": Trouble({"flow_outcomes_database_up": "1x10 stale"}, "17m", {}),
    "FlowOutcomesOrgNotHeld": Trouble({'flow_outcomes_org_held{org="acme"}': "0x20"}, "6m", ORG),
    "FlowOutcomesBreakerOpen": Trouble({'flow_outcomes_breaker_state{org="acme"}': "2x30"}, "16m", ORG),
    "FlowOutcomesRateLimited": Trouble({'flow_outcomes_limit_hold_seconds{org="acme"}': "600x60"}, "31m", ORG),
    "FlowOutcomesEntriesRejected": Trouble(  # the counter begins with them
        {'flow_outcomes_rejected_entries_total{org="acme",job="daily"}': "_x120 3x60"}, "125m", JOB
    ),
    "FlowOutcomesDatabaseUnavailable": Trouble({"flow_outcomes_database_up": "0x20"}, "3m", {}),
    "FlowOutcomesStatusStale": Trouble({"flow_outcomes_status_age_seconds": "500+60x40"}, "15m", {}),
}


def promtool(*words: str) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def tried(folder: Path, series: dict[str, str], *told: dict[str, object]) -> None:
    """Have promtool run the rules over the series, a value a minute."""
    tree = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": list(told),
            }
        ],
    }
    (folder / "tests.yaml").write_text(yaml.safe_dump(tree))
    promtool("test", "rules", str(folder / "tests.yaml"))


def firing(at: str, *alerts: dict[str, str]) -> dict[str, object]:
    """That just these alerts fire then."""
    labels = [", ".join(f'{label}="{value}"' for label, value in sorted(alert.items())) for alert in alerts]
    expression = 'count by (alertname, org, job) (ALERTS{alertstate="firing"})'
    samples = [{"labels": f"{{{each}}}", "value": 1} for each in labels]
    return {"expr": expression, "eval_time": at, "exp_samples": samples}


def test_the_configuration(tmp_path: Path) -> None:
    """What compose.yaml gives to Prometheus is what Prometheus takes."""
    tree = yaml.safe_load((ROOT / "compose.yaml").read_text())
    (tmp_path / "prometheus.yml").write_text(tree["configs"]["prometheus"]["content"])
    (tmp_path / "alerts.yaml").write_text(RULES.read_text())
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_each_has_its_trouble() -> None:
    """No rule is untried."""
    rules = yaml.safe_load(RULES.read_text())["groups"]
    assert [rule["alert"] for group in rules for rule in group["rules"]] == list(TROUBLES)


@pytest.mark.parametrize("name", TROUBLES)
def test_it_fires(tmp_path: Path, name: str) -> None:
    """In its trouble an alert fires, once however many processes tell of it."""
    series, at, of = TROUBLES[name]
    up = {} if "database_up" in str(series) else {"flow_outcomes_database_up": "1x2400"}
    tried(tmp_path, {**up, **series}, firing(at, {"alertname": name, **of}))


def test_none_fires_for_nothing(tmp_path: Path) -> None:
    """Short troubles, a daily job's usual age and a restart wake nobody."""
    tried(tmp_path, HEALTHY, *(firing(f"{minute}m") for minute in (1, 59, 99, 200, 603, 759, 765, 2000)))
