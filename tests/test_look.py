"""Looks: validity, variety, determinism and what they mean for light."""

from collections import Counter

import numpy as np
import pytest

from drivesim.reference.look import Look, SceneryKind, TimeOfDay, Weather, atmosphere, draw_look


def test_draws_repeat_with_the_seed_and_differ_between_seeds():
    first, again, other = (draw_look(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_every_hour_weather_and_scenery_is_drawn():
    rng = np.random.default_rng(0)
    looks = [draw_look(rng) for _ in range(300)]
    for name, kinds in (("time_of_day", TimeOfDay), ("weather", Weather), ("scenery", SceneryKind)):
        counts = Counter(getattr(look, name) for look in looks)
        assert min(counts[kind] for kind in kinds) >= 15, name
    colors = np.array(
        [color for look in looks for color in (look.ground_rgb, look.asphalt_rgb, look.line_rgb)]
    )
    assert colors.min() >= 0
    assert colors.max() <= 255


def test_lines_stand_out_from_asphalt():
    rng = np.random.default_rng(1)
    for _ in range(100):
        look = draw_look(rng)
        assert np.mean(look.line_rgb) > np.mean(look.asphalt_rgb) + 60


def test_words_name_weather_hour_and_place():
    look = Look(time_of_day=TimeOfDay.DUSK, weather=Weather.RAIN, scenery=SceneryKind.OPEN)
    assert look.words == "rainy dusk, open country"


@pytest.mark.parametrize("field", ["line_width_m", "stripe_length_m", "shoulder_m", "density"])
def test_negative_sizes_are_refused(field):
    with pytest.raises(ValueError, match=field):
        Look(**{field: -1.0})


def test_night_is_darker_and_haze_thicker():
    noon, night = (atmosphere(Look(time_of_day=time)) for time in (TimeOfDay.NOON, TimeOfDay.NIGHT))
    up = np.array([0.0, 0.0, 1.0])
    assert noon.lit(np.ones(3), up).mean() > 2.5 * night.lit(np.ones(3), up).mean()
    assert night.has_headlights
    assert not noon.has_headlights
    clear, hazy = (atmosphere(Look(weather=weather)) for weather in (Weather.CLEAR, Weather.HAZE))
    assert hazy.haze(np.array(50.0)) > 2 * clear.haze(np.array(50.0))
    assert clear.haze(np.array(0.0)) == 0.0


def test_faces_turned_to_the_sun_are_brighter():
    air = atmosphere(Look(sun_azimuth_rad=0.0))
    towards, away = air.lit(np.ones((2, 3)), np.array([[1.0, 0, 0], [-1.0, 0, 0]]))
    assert (towards > away).all()
