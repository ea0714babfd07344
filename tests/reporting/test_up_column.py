import pytest

from l2e.reporting import up

# L2E, Table 1 (method.md): ARC-C, PIQA, SciQ; then "up" as computed from them and as printed in the paper.
PYTHIA = {
    ("70M", 0): (0.1706, 0.5887, 0.6430),
    ("70M", 5): (0.1834, 0.5843, 0.4050),
    ("410M", 0): (0.1852, 0.6376, 0.7400),
    ("410M", 5): (0.1988, 0.6415, 0.4850),
    ("2.8B", 0): (0.2253, 0.6768, 0.7910),
    ("2.8B", 5): (0.2346, 0.6844, 0.4810),
}
TABLE_1 = [
    ("70M", 0, (0.1681, 0.5930, 0.6350), -0.44, -0.4),
    ("70M", 5, (0.1741, 0.5925, 0.4110), 0.42, 0.4),
    ("70M", 0, (0.1877, 0.5963, 0.6510), 2.33, 2.3),
    ("70M", 5, (0.1860, 0.6034, 0.4380), 4.66, 4.7),
    ("410M", 0, (0.2090, 0.6289, 0.7520), 1.73, 1.7),
    ("410M", 5, (0.2056, 0.6344, 0.4820), -0.25, -0.2),
    ("410M", 0, (0.2031, 0.6398, 0.7470), 1.73, 1.7),
    ("410M", 5, (0.2039, 0.6518, 0.4870), 1.31, 1.3),
    ("2.8B", 0, (0.2167, 0.6763, 0.8130), 0.76, 0.8),
    ("2.8B", 5, (0.2355, 0.6768, 0.4910), 0.24, 0.2),
    ("2.8B", 0, (0.2304, 0.6795, 0.8150), 1.88, 1.9),
    ("2.8B", 5, (0.2415, 0.6817, 0.4910), 1.01, 1.0),
]


@pytest.mark.parametrize(("size", "shots", "accuracies", "computed", "printed"), TABLE_1)
def test_up_gives_the_column_of_table_1(
    size: str, shots: int, accuracies: tuple[float, ...], computed: float, printed: float
) -> None:
    found = up(accuracies, PYTHIA[size, shots])
    assert found == pytest.approx(computed, abs=0.005001)
    assert round(found, 1) == printed


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([0.5], [0.5, 0.6]), ([0.5], [0.0])])
def test_up_refuses_what_it_cannot_compare(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="up "):
        up(ours, theirs)
