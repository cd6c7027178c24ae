"""What is held out of a data set: its last part, by time."""

from hypothesis import given
from hypothesis import strategies as st

from drivesim.training.time_split import Segment, split_by_time


def split(*counts, share=0.15, gap=6):
    return split_by_time([(f"s{i}", n) for i, n in enumerate(counts)], share=share, gap_frames=gap)


def test_whole_last_scenes_where_there_are_several():
    result = split(*[120] * 20)
    assert result.held_out == [Segment(scene=f"s{i}", first=0, stop=120) for i in (17, 18, 19)]
    assert [segment.scene for segment in result.train] == [f"s{i}" for i in range(17)]
    assert result.words == "3 scenes from s17 to s19"


def test_one_scene_is_cut_with_a_gap():
    result = split(200)
    assert result.train == [Segment(scene="s0", first=0, stop=164)]
    assert result.held_out == [Segment(scene="s0", first=170, stop=200)]
    assert result.words == "frames 170 to 199 of s0"


def test_few_scenes_are_cut_where_a_whole_one_would_be_too_much():
    result = split(300, 300)
    assert result.held_out == [Segment(scene="s1", first=210, stop=300)]
    assert result.train == [Segment(scene="s0", first=0, stop=300), Segment(scene="s1", first=0, stop=204)]


def test_a_short_last_scene_is_not_enough():
    result = split(300, 300, 20)
    assert result.held_out == [
        Segment(scene="s1", first=227, stop=300),
        Segment(scene="s2", first=0, stop=20),
    ]
    assert result.words == "frames 227 to 299 of s1 and scene s2"
    assert split(300, 300, 60, 40).words == "2 scenes from s2 to s3"


def test_what_is_cut_off_may_leave_nothing_of_a_scene():
    result = split(500, 100, gap=90)
    assert result.held_out == [Segment(scene="s1", first=0, stop=100)]
    assert split(60, 100, share=0.45, gap=90).train == [Segment(scene="s0", first=0, stop=60)]


@given(
    st.lists(st.integers(2, 400), min_size=1, max_size=12),
    st.floats(0.05, 0.45),
    st.integers(0, 30),
)
def test_the_parts_never_meet(counts, share, gap):
    result = split(*counts, share=share, gap=gap)
    held_out = sum(len(segment) for segment in result.held_out)
    assert 2 / 3 * share * sum(counts) - 1 <= held_out <= 2 * share * sum(counts) + 1
    last = result.train[-1] if result.train else None
    first = result.held_out[0]
    if last is not None and last.scene == first.scene:
        assert first.first - last.stop >= gap
    names = [f"s{i}" for i in range(len(counts))]
    assert [segment.scene for segment in result.held_out] == names[-len(result.held_out) :]
    assert all(len(segment) > 0 for segment in [*result.train, *result.held_out])
