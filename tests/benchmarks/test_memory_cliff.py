"""The swap cliff's bench runs, and who runs is never held up by an adapter that comes or goes."""

from benchmarks.memory import DEMO, cliff


def test_four_times_the_budget_in_small():
    points = cliff(DEMO, held=2, requests=8, multiples=(0.5, 4), passes=1)
    assert [(p.multiple, p.memory) for p in points] == [
        (0.5, "split"),
        (0.5, "unified"),
        (4, "split"),
        (4, "unified"),
    ]
    assert all(p.steady == 1.0 for p in points)
    assert [p.loads for p in points[:2]] == [1, 1]
    assert all(p.loads > 2 for p in points[2:])
