from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.compare import Comparison
from reconciler.core.errors import Refusal
from reconciler.core.model import Action, Finding, Mode, Result
from reconciler.core.plan import EmptyList, Limits, Plan, TooMuchDrift, build_plan
from reconciler.core.reasons import CORRECTING, Reason
from tests.support.comparison import NOW
from tests.unit.test_compare import ACTION

ENABLE = Reason.SKILL_ENABLE_UNRECORDED
DELETED = Reason.DELETION_UNRECORDED


def found(reason: Reason, tenant: str, subject: str | None = None, action: Action | None = None) -> Finding:
    return Finding(reason=reason, tenant=tenant, org="1", action=action or ACTION[reason], subject=subject)


def each(reason: Reason, tenants: int, **fields: Any) -> list[Finding]:
    """Return one finding for each of so many tenants."""
    return [found(reason, f"tenant-{number}", **fields) for number in range(tenants)]


def plan(findings: list[Finding], *, observed: int = 10, recorded: int = 10, empty: bool = False) -> Plan:
    first = Comparison(
        observed={}, findings={}, tenants_observed=observed, tenants_recorded=recorded, ledger_is_empty=empty, as_of=NOW
    )
    return build_plan(findings, first)


_findings = st.lists(
    st.builds(
        found, st.sampled_from(Reason), st.sampled_from("abc"), st.none() | st.sampled_from(["", "x", "y", "Z", "é"])
    ),
    unique_by=lambda f: (f.tenant, f.reason, f.subject or ""),
)


@given(_findings, st.randoms(use_true_random=False))
def test_the_order_of_a_plan_is_that_of_tenant_reason_and_subject(findings: list[Finding], random: Any) -> None:
    shuffled = random.sample(findings, len(findings))
    assert plan(shuffled) == plan(findings)
    order = list(Reason)
    keys = [(f.tenant, order.index(f.reason), f.subject or "") for f in plan(shuffled).findings]
    assert keys == sorted(keys)


def test_what_is_deferred_is_not_accepted_any_longer() -> None:
    accepted = found(Reason.ORG_MOVED, "acme")._replace(accepted_until=NOW)
    assert accepted.deferred().accepted_until is None


@given(_findings)
def test_the_corrections_are_the_findings_that_write(findings: list[Finding]) -> None:
    assert {f.reason for f in plan(findings).corrections} == {f.reason for f in findings} & set(CORRECTING)


def test_a_plan_is_a_value() -> None:
    one = plan(each(ENABLE, 2))
    assert one == plan(each(ENABLE, 2))
    assert len({one, plan(each(ENABLE, 2))}) == 1
    with pytest.raises(AttributeError):
        one.tenants_observed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("findings", "mode", "result"),
    [
        ([], Mode.PLAN, Result.CLEAN),
        ([], Mode.RUN, Result.CLEAN),
        (each(ENABLE, 1), Mode.PLAN, Result.DRIFT),
        (each(ENABLE, 1), Mode.RUN, Result.CORRECTED),
        (each(Reason.ORG_MOVED, 1), Mode.PLAN, Result.DRIFT),
        (each(Reason.ORG_MOVED, 1), Mode.RUN, Result.DRIFT),
        (each(Reason.ORG_MOVED, 1) + each(ENABLE, 1), Mode.RUN, Result.CORRECTED),
        (each(ENABLE, 1, action=Action.DEFER), Mode.PLAN, Result.CLEAN),
        (each(ENABLE, 1, action=Action.DEFER), Mode.RUN, Result.CLEAN),
        (each(ENABLE, 1, action=Action.DEFER) + each(Reason.ORG_MOVED, 1), Mode.RUN, Result.DRIFT),
    ],
)
def test_how_a_run_ends(findings: list[Finding], mode: Mode, result: Result) -> None:
    assert plan(findings).result(mode) is result


@pytest.mark.parametrize("reason", [reason for reason, action in ACTION.items() if action.writes])
def test_every_correction_is_limited(reason: Reason) -> None:
    plan(each(reason, 3)).raise_if_unsafe(Limits())
    with pytest.raises(TooMuchDrift) as refused:
        plan(each(reason, 4)).raise_if_unsafe(Limits())
    assert str(refused.value) == (
        f"This run would correct {reason} on 4 tenants; the limit is 3 of 10 open tenants for each reason."
    )
    assert f"--allow-mass {reason}" in refused.value.remedy
    assert "Nothing was written" in refused.value.remedy
    assert refused.value.exit_code == 3
    assert isinstance(refused.value, Refusal)


def test_what_people_decided_is_not_limited() -> None:
    decided = [finding._replace(decision=7) for finding in each(Reason.RECORDED, 4)]
    plan(decided + each(ENABLE, 3)).raise_if_unsafe(Limits())
    with pytest.raises(TooMuchDrift):
        plan(decided + each(ENABLE, 4)).raise_if_unsafe(Limits())


@pytest.mark.parametrize(
    ("limits", "recorded", "allowed"),
    [
        (Limits(), 0, 3),
        (Limits(), 1, 3),
        (Limits(), 30, 3),
        (Limits(), 39, 3),
        (Limits(), 40, 4),
        (Limits(), 1000, 100),
        (Limits(count=0), 9, 0),
        (Limits(count=0), 10, 1),
        (Limits(count=0, percent=0), 1000, 0),
        (Limits(count=50, percent=0), 1000, 50),
        (Limits(percent=100), 12, 12),
        (Limits(percent=0.5), 1000, 5),
        (Limits(count=0, percent=32.3), 1000, 323),
    ],
)
def test_the_limit_is_the_count_or_the_share_whichever_allows_more(limits: Limits, recorded: int, allowed: int) -> None:
    plan(each(DELETED, allowed), recorded=recorded).raise_if_unsafe(limits)
    with pytest.raises(TooMuchDrift, match=f"on {allowed + 1} tenants; the limit is {allowed} of {recorded} open"):
        plan(each(DELETED, allowed + 1), recorded=recorded).raise_if_unsafe(limits)


def test_tenants_are_counted_and_not_their_findings() -> None:
    findings = [found(ENABLE, tenant, skill) for tenant in "abc" for skill in "defghi"]
    plan(findings).raise_if_unsafe(Limits())
    with pytest.raises(TooMuchDrift, match="on 4 tenants"):
        plan([*findings, found(ENABLE, "d", "x")]).raise_if_unsafe(Limits())


def test_every_reason_is_counted_for_itself() -> None:
    corrected = [reason for reason, action in ACTION.items() if action.writes]
    plan([finding for reason in corrected for finding in each(reason, 3)]).raise_if_unsafe(Limits())


def test_every_reason_over_the_limit_is_named() -> None:
    with pytest.raises(TooMuchDrift) as refused:
        plan(each(ENABLE, 5) + each(DELETED, 4) + each(Reason.ORG_RESOLVED, 1)).raise_if_unsafe(Limits())
    assert "deletion_unrecorded on 4 tenants, skill_enable_unrecorded on 5 tenants" in str(refused.value)
    assert "--allow-mass deletion_unrecorded --allow-mass skill_enable_unrecorded" in refused.value.remedy
    assert "org_resolved" not in str(refused.value) + refused.value.remedy


def test_a_reason_that_is_allowed_passes_and_no_other_does() -> None:
    both = plan(each(ENABLE, 5) + each(DELETED, 4))
    both.raise_if_unsafe(Limits(allow_mass=frozenset({ENABLE, DELETED})))
    with pytest.raises(TooMuchDrift) as refused:
        both.raise_if_unsafe(Limits(allow_mass=frozenset({ENABLE})))
    assert "skill_enable_unrecorded" not in str(refused.value) + refused.value.remedy


def test_reports_and_what_is_deferred_are_not_counted() -> None:
    reports = [finding for reason in Reason for finding in each(reason, 9) if not finding.action.writes]
    deferred = [finding for reason in Reason for finding in each(reason, 9, action=Action.DEFER)]
    plan(reports + deferred).raise_if_unsafe(Limits(count=0, percent=0))


def test_the_empty_list_is_refused_whatever_is_allowed() -> None:
    with pytest.raises(EmptyList) as refused:
        plan(each(DELETED, 1), observed=0, recorded=1).raise_if_unsafe(
            Limits(count=100, percent=100, allow_mass=frozenset(Reason))
        )
    assert "empty" in str(refused.value)
    assert "1 open" in str(refused.value)
    assert "Nothing was written" in refused.value.remedy
    assert refused.value.exit_code == 3


def test_the_empty_list_is_refused_before_anything_is_counted() -> None:
    with pytest.raises(EmptyList):
        plan(each(DELETED, 50), observed=0, recorded=50).raise_if_unsafe(Limits())


def test_an_empty_list_against_a_ledger_without_open_tenants_is_taken() -> None:
    plan([], observed=0, recorded=0).raise_if_unsafe(Limits())
    plan(each(Reason.SKILL_OPEN_AFTER_DELETION, 3), observed=0, recorded=0).raise_if_unsafe(Limits())


def test_an_empty_ledger_takes_every_tenant_with_its_first_events() -> None:
    findings = [
        *each(Reason.TENANT_UNRECORDED, 500),
        *each(ENABLE, 500, subject="a"),
        *each(Reason.SUSPENSION_UNRECORDED, 500),
        *each(DELETED, 20),
    ]
    plan(findings, observed=500, recorded=0, empty=True).raise_if_unsafe(Limits(count=0, percent=0))


def test_an_empty_ledger_limits_what_is_no_new_tenants() -> None:
    backfill = each(Reason.TENANT_UNRECORDED, 500)
    others = [found(Reason.SKILL_DISABLE_UNRECORDED, f"other-{number}", "a") for number in range(4)]
    with pytest.raises(TooMuchDrift, match="skill_disable_unrecorded on 4 tenants"):
        plan(backfill + others, observed=500, recorded=0, empty=True).raise_if_unsafe(Limits())


def test_a_ledger_of_closed_tenants_is_not_empty() -> None:
    with pytest.raises(TooMuchDrift, match="tenant_unrecorded on 4 tenants; the limit is 3 of 0 open"):
        plan(each(Reason.TENANT_UNRECORDED, 4), recorded=0, empty=False).raise_if_unsafe(Limits())


@given(_findings, st.integers(0, 5), st.sampled_from([0, 10, 50, 100]), st.integers(0, 12))
def test_a_plan_that_passes_corrects_no_more_tenants_than_the_limit(
    findings: list[Finding], count: int, percent: int, recorded: int
) -> None:
    made = plan(findings, recorded=recorded)
    most = max(
        (len({f.tenant for f in made.corrections if f.reason is reason}) for reason in Reason),
        default=0,
    )
    if most > count and most * 100 > recorded * percent:
        with pytest.raises(TooMuchDrift):
            made.raise_if_unsafe(Limits(count=count, percent=percent))
    else:
        made.raise_if_unsafe(Limits(count=count, percent=percent))
