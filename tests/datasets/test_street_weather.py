"""Rain and fog over the simulated street."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perception.datasets.sample import IGNORE, Sample
from perception.datasets.street import CLASSES, CLEAR, Lens, Street, Weather


@pytest.fixture(scope="module")
def street() -> Street:
    return Street(20)


@pytest.fixture(scope="module")
def clear(street: Street) -> Sample:
    return street.scan(0)


def ranges(sample: Sample) -> np.ndarray:
    return np.asarray(np.linalg.norm(sample.cloud.points, axis=1))


def test_extinction_is_what_the_definitions_say() -> None:
    assert CLEAR.extinction == 0.0
    assert math.exp(-50.0 * Weather(visibility=50.0).extinction) == pytest.approx(0.02, rel=1e-3)
    decibel = 10.0 * math.log10(math.exp(1000.0 * Weather(rain=10.0).extinction))
    assert decibel == pytest.approx(1.076 * 10.0**0.67)
    assert Weather(rain=20.0).soaked > 0.99
    assert Weather(rain=20.0, wetness=0.0).soaked == 0.0


def test_weather_that_changes_nothing_changes_nothing(street: Street, clear: Sample) -> None:
    same = street.scan(0, weather=Weather(rain=0.0, visibility=math.inf))
    np.testing.assert_array_equal(same.cloud.points, clear.cloud.points)


@pytest.mark.parametrize(
    "weather", [Weather(rain=10.0), Weather(visibility=60.0)], ids=["rain", "fog"]
)
def test_weather_takes_points_away_and_adds_drops(
    street: Street, clear: Sample, weather: Weather
) -> None:
    sample = street.scan(0, weather=weather)
    labels = sample.labels
    assert labels is not None
    before = {row.tobytes() for row in clear.cloud.points}
    # Benches and bins have no class either, but are there in clear weather too.
    new = np.array([row.tobytes() not in before for row in sample.cloud.points])
    drops = (labels == IGNORE) & new
    after = {row.tobytes() for row in sample.cloud.points[~drops]}
    assert after < before
    assert 100 < drops.sum() < 0.3 * len(drops)
    assert np.median(ranges(sample)[drops]) < 10.0
    intensity = sample.cloud.attributes["intensity"]
    assert intensity[drops].mean() < 0.12
    assert sample.instances is not None
    assert not sample.instances[drops].any()


def test_the_thicker_the_fog_the_shorter_the_sight(street: Street, clear: Sample) -> None:
    far = []
    for visibility in (500.0, 100.0, 30.0):
        sample = street.scan(0, weather=Weather(visibility=visibility))
        assert sample.labels is not None
        far.append(int(((ranges(sample) > 25.0) & (sample.labels != IGNORE)).sum()))
    assert (ranges(clear) > 25.0).sum() >= far[0] > far[1] > far[2]
    assert far[2] < 0.1 * far[0]


def test_wet_ground_returns_less_from_far_and_less_brightly(street: Street, clear: Sample) -> None:
    wet = street.scan(0, weather=Weather(wetness=1.0))
    road = CLASSES.index("road")

    def seen(sample: Sample) -> tuple[float, float]:
        assert sample.labels is not None
        mine = sample.labels == road
        near = mine & (ranges(sample) < 12.0)
        share = float((ranges(sample)[mine] > 20.0).sum())
        return float(sample.cloud.attributes["intensity"][near].mean()), share

    (dry_value, dry_far), (wet_value, wet_far) = seen(clear), seen(wet)
    assert wet_value < 0.7 * dry_value
    assert wet_far < 0.6 * dry_far
    assert clear.labels is not None
    assert wet.labels is not None
    # Wet, but no drops in the air.
    assert (wet.labels == IGNORE).sum() <= (clear.labels == IGNORE).sum()


def test_fog_takes_the_contrast_of_pictures(street: Street) -> None:
    lens = Lens(size=(160, 90))
    clear, thin, thick = (
        street.picture(0, lens, weather=w)
        for w in (CLEAR, Weather(visibility=200.0), Weather(visibility=40.0))
    )
    np.testing.assert_array_equal(clear.depth, thick.depth)
    far = clear.depth > 20.0
    spread = [float(p.rgb[far].astype(float).std()) for p in (clear, thin, thick)]
    assert spread[0] > spread[1] > 2.0 * spread[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rain": -1.0}, "rain"),
        ({"rain": math.nan}, "rain"),
        ({"visibility": 0.0}, "visibility"),
        ({"wetness": 2.0}, "wetness"),
    ],
)
def test_senseless_weather_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Weather(**arguments)
