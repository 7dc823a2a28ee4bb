import numpy as np

from finetune.data.depth_edges import find_depth_edges, log_steps


def test_edges_are_jumps_by_a_share_of_the_nearer() -> None:
    depth_m = np.array([[1.0, 1.04, 2.0, 2.05]], np.float32)
    assert find_depth_edges(depth_m, 0.05).tolist() == [[False, True, True, False]]
    assert find_depth_edges(depth_m.T, 0.05).tolist() == [[False], [True], [True], [False]]
    assert not find_depth_edges(depth_m, 1.0).any()


def test_sky_next_to_sky_is_no_edge_and_next_to_what_is_measured_it_is() -> None:
    depth_m = np.array([[2.0, np.inf, np.inf]], np.float32)
    assert find_depth_edges(depth_m, 0.05).tolist() == [[True, True, False]]


def test_steps_are_of_pairs_that_are_known() -> None:
    logs = np.array([[0.0, 0.5], [0.25, 9.0]])
    known = np.array([[True, True], [True, False]])
    assert log_steps(logs, known).tolist() == [0.25, 0.5]
    assert not log_steps(logs, np.eye(2) > 0).size
