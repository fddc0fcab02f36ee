"""Which cases of a test `make test` runs; `make test-all` runs the others too.

And which tests are `quick`: those that a new Python or JAX is tried with.
"""

import pytest

QUICK = {
    # What reads programs of JAX, the bridge to neural-tangents, stores: whole files.
    "test_empirical_layers.py": None,
    "test_empirical_operator.py": None,
    "test_finite_empirical.py": None,
    "test_neural_tangents.py": None,
    "test_records.py": None,
    "test_finite_checkpoints.py": [
        "test_a_killed_training_ends_with_the_same_bits",
        "test_optimizers_are_told_apart",
        "test_losses_are_told_apart",
        "test_states_with_random_keys_come_back",
    ],
    "test_tile_store.py": [
        "test_round_trip_is_bit_identical",
        "test_other_readers_of_zarr_see_the_upper_triangle",
        "test_any_number_of_kills_costs_nothing",
    ],
    "test_finite_networks.py": [
        "test_frozen_weights_are_no_parameters",
        "test_program_does_not_grow_with_depth",
    ],
    "test_stax.py": ["test_alike_blocks_are_one_loop"],
    # One test of each public function.
    "test_activations.py": ["test_a_user_activation_agrees_with_the_built_in_one"],
    "test_architectures.py": [
        "test_json_round_trip_and_value_semantics",
        "test_defaults_are_resolved_so_that_equal_networks_are_equal",
        "test_scales",
    ],
    "test_cli.py": ["test_doctor", "test_gram"],
    "test_compare.py": [
        "test_the_definitions",
        "test_a_sweep_is_the_distance_at_each_depth",
    ],
    "test_convolution.py": [
        "test_presets",
        "test_what_is_no_network",
        "test_gram_and_kernel_fn_agree",
    ],
    "test_data.py": ["test_npz_and_csv_with_and_without_header_agree"],
    "test_depth.py": ["test_sweeps_carry_units_and_provenance_and_follow_the_dtype"],
    "test_estimators.py": [
        "test_predictions_are_those_of_kernel_ridge",
        "test_the_classes_are_those_of_the_largest_output",
    ],
    "test_finite_dispersion.py": [
        "test_what_comes_out",
        "test_theory_agrees_with_an_independent_table",
    ],
    "test_finite_training.py": ["test_bookkeeping"],
    "test_finite_width.py": ["test_errors_are_those_of_the_networks"],
    "test_gram_devices.py": ["test_a_killed_run_is_resumed"],
    "test_kernel_fn.py": ["test_what_comes_back", "test_transformations"],
    "test_learning_curve.py": [
        "test_one_eigenvalue_is_solved_by_hand",
        "test_same_seed_same_numbers_and_progress",
        "test_the_digits_do_as_predicted",
        "test_early_stopping_follows_the_exponentials",
    ],
    "test_mercer.py": [
        "test_laplace_kernel",
        "test_small_is_not_zero",
        "test_parity_imbalance",
    ],
    "test_operator.py": ["test_products_are_those_of_the_matrix", "test_diagonal"],
    "test_package.py": None,
    "test_phases.py": [
        "test_critical_erf_has_the_known_numbers",
        "test_condition_numbers_of_relu",
    ],
    "test_profile.py": ["test_lists_and_whole_numbers_are_angles"],
    "test_regression.py": ["test_equals_neural_tangents"],
    "test_solve.py": ["test_float32_data_are_solved_in_float64"],
    "test_spectrum.py": [
        "test_known_eigenvalues",
        "test_scalars_of_an_operator",
        "test_the_distribution_is_that_of_the_eigenvalues",
    ],
}
"""Files and their tests; `None`: all."""


def is_quick(file, test):
    """Whether a test is one of those."""
    return file in QUICK and (QUICK[file] is None or test in QUICK[file])


def slow_but_for(cases, quick):
    """The cases, slow ones but for those for which `quick(case)` is true."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=[] if quick(case) else pytest.mark.slow,
        )
        for case in cases
    ]
