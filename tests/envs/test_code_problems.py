"""The tasks of the code environment: right, small, and apart."""

import ast
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from hashlib import sha256

import pytest

from sdpo.envs.base import Environment, Role
from sdpo.envs.code import Code
from sdpo.envs.code.problem import load_problems
from sdpo.envs.code.program_problem import load_program_problems
from sdpo.envs.code.trials import FunctionTests, ProgramTests

FUNCTION_PROBLEMS = load_problems()
PROGRAM_PROBLEMS = load_program_problems()
PROBLEMS = (*FUNCTION_PROBLEMS, *PROGRAM_PROBLEMS)
TRAIN = Code().tasks("train", 0)
HELDOUT = Code().tasks("heldout", 0)
FUNCTIONS = [task for task in (*TRAIN, *HELDOUT) if isinstance(task.payload, FunctionTests)]
PROGRAMS = [task for task in (*TRAIN, *HELDOUT) if isinstance(task.payload, ProgramTests)]
FIRST_FAMILIES = [
    *("arithmetic", "conversion", "counting", "dictionaries", "geometry", "lists"),
    *("number_theory", "predicates", "searching", "sequences", "strings"),
]

HAND_WORKED = """
add-3 add_3(5) == 8 | times-12 times_12(4) == 48 | minus_from-50 from_50(8) == 42
scale_and_shift-4-3 compute(2) == 11 | square square(-4) == 16 | average_of_two average_of_two(3, 4) == 3.5
floor_divide-3 divide_by_3(17) == 5 | absolute_difference absolute_difference(2, 9) == 7
percent_of-25 percent_25(80) == 20 | is_even is_even(3) == False | is_multiple-4 is_multiple_of_4(12) == True
is_greater-18 is_greater_than_18(18) == False | is_between-5-20 is_between(20) == True
both_positive both_positive(0, 1) == False | is_palindrome is_palindrome('abba') == True
starts_with-b starts_with_b('bee') == True | are_different are_different(1, 1) == False
is_sorted is_sorted([1, 3, 2]) == False | has_length-4 has_length_4('tree') == True
numbers_up_to numbers_up_to(4) == [1, 2, 3, 4] | countdown countdown(2) == [2, 1] | sum_to sum_to(10) == 55
multiples-5 multiples_of_5(3) == [5, 10, 15] | powers-2 power_of_2(10) == 1024
even_numbers even_numbers(5) == [0, 2, 4] | fibonacci fibonacci(10) == 55 | factorial factorial(5) == 120
squares_up_to squares_up_to(3) == [1, 4, 9] | repeat_number-7 list_of_7(2) == [7, 7]
rectangle_area rectangle_area(3, 4) == 12 | square_perimeter square_perimeter(5) == 20
triangle_area triangle_area(3, 5) == 7.5 | box_volume box_volume(2, 3, 5) == 30 | circle_area circle_area(10) == 314.0
cube_volume cube_volume(3) == 27 | rectangle_perimeter rectangle_perimeter(3, 4) == 14
hypotenuse hypotenuse(5, 12) == 13.0 | remainder-7 remainder_by_7(24) == 3 | last_digit last_digit(2018) == 8
sum_of_digits sum_of_digits(2018) == 11 | divisors divisors(12) == [1, 2, 3, 4, 6, 12] | gcd gcd(100, 75) == 25
is_prime is_prime(9) == False | lcm lcm(10, 4) == 20 | num_divisors num_divisors(12) == 6
round_up-5 round_up_to_5(21) == 25 | reverse_string reverse_string('abc') == 'cba' | shout shout('Hi you') == 'HI YOU'
repeat-3 repeat_3('ab') == 'ababab' | add_prefix-un add_prefix('do') == 'undo'
remove_letter-e remove_e('see') == 's' | first_letters-2 first_2('python') == 'py'
swap_letter-l-r swap_letters('lol') == 'ror' | title_words title_words('red fox') == 'Red Fox'
last_letter last_letter('hello') == 'o' | surround-u7c surround('a') == '|a|'
join_words-u2d join_words(['x', 'y']) == 'x-y' | sum_list sum_list([10, 20]) == 30 | largest largest([-4, -9]) == -4
first_items-2 first_2_items([7, 8, 9]) == [7, 8] | keep_greater-2 keep_greater_than_2([2, 3, 1, 9]) == [3, 9]
times_each-3 times_3_each([1, 2]) == [3, 6] | sort_descending sort_descending([1, 3, 2]) == [3, 2, 1]
unique unique([5, 4, 5, 3]) == [5, 4, 3] | append_item-9 append_9([1]) == [1, 9]
without_first without_first([1, 2]) == [2] | average_of_list average_of_list([1, 2]) == 1.5
last_items-2 last_2_items([1, 2, 3]) == [2, 3] | count_vowels count_vowels('banana') == 3
count_letter-s count_s('sassy') == 3 | count_words count_words('a b c') == 3 | count_item-5 count_5([5, 0, 5]) == 2
count_even count_even([0, 1, 2]) == 2 | count_longer-3 count_longer_than_3(['abc', 'abcd']) == 1
count_greater-5 count_greater_than_5([5, 6]) == 1 | count_digits count_digits('a1b22') == 3
count_capitals count_capitals('Red Fox') == 2 | celsius_to_fahrenheit celsius_to_fahrenheit(100) == 212.0
to_unit-7-weeks-days weeks_to_days(2) == 14 | to_euros-0u2e8 to_euros(10) == 8.0 | to_binary to_binary(5) == '101'
to_digits to_digits(123) == [1, 2, 3] | to_integers to_integers(['7', '-3']) == [7, -3]
fahrenheit_to_celsius fahrenheit_to_celsius(212) == 100.0 | yes_or_no-yes-no are_equal(1, 2) == 'no'
to_text to_text([1, 2]) == ['1', '2'] | get_or-10 get_or_10({'a': 3}, 'b') == 10
sum_values sum_values({'a': 1, 'b': 2}) == 3 | sorted_keys sorted_keys({'b': 1, 'a': 2}) == ['a', 'b']
invert invert({'a': 1}) == {1: 'a'} | letter_counts letter_counts('aab') == {'a': 2, 'b': 1}
make_dict-x-y make_dict(1, 2) == {'x': 1, 'y': 2} | count_keys count_keys({'a': 1}) == 1
merge merge({'x': 1}, {'x': 3, 'y': 2}) == {'x': 3, 'y': 2} | keys_above-5 keys_above_5({'q': 5, 'r': 6}) == ['r']
zip_to_dict zip_to_dict(['a'], [1]) == {'a': 1} | max_of_three max_of_three(1, 5, 2) == 5 | clamp-1-6 clamp(9) == 6
contains-3 contains_3([3]) == True | index_of index_of([4, 5], 5) == 1
longest_word longest_word(['a', 'abc']) == 'abc' | first_even first_even([1, 4, 6]) == 4
smaller_of_two smaller_of_two(9, 2) == 2 | second_largest second_largest([1, 5, 3]) == 3
first_greater-3 first_greater_than_3([1, 5, 9]) == 5
count_ones count_ones(7) == 3 | toggle_bit-2 toggle_bit_2(5) == 1 | is_power_of_two is_power_of_two(12) == False
highest_power highest_power(9) == 8 | swap_halves_of_byte swap_halves(18) == 33
row_sums row_sums([[1, 9], [3]]) == [10, 3] | main_diagonal main_diagonal([[1, 2], [3, 4]]) == [1, 4]
transpose transpose([[1, 2, 3]]) == [[1], [2], [3]] | rotate_clockwise rotate_clockwise([[1, 2], [3, 4]]) == [[3, 1], [4, 2]]
column_maxima column_maxima([[1, 4], [3, 2]]) == [3, 4] | border_sum border_sum([[1, 1, 1], [1, 9, 1], [1, 1, 1]]) == 8
sort_by_last sort_by_last([(1, 3), (2, 1)]) == [(2, 1), (1, 3)]
sort_by_length sort_by_length(['ccc', 'b', 'a']) == ['a', 'b', 'ccc'] | merge_sorted merge_sorted([1, 4], [2]) == [1, 2, 4]
ranks ranks([50, 90, 70, 70]) == [4, 1, 2, 2] | sort_by_digit_sum sort_by_digit_sum([9, 11, 20]) == [11, 20, 9]
evens_first evens_first([3, 2, 1, 4]) == [2, 4, 1, 3] | has_repeats has_repeats([1, 2]) == False
is_valid_time is_valid_time('9:30') == False | is_balanced is_balanced('([)]') == False
is_hex_color is_hex_color('#12abEG') == False | deepest_bracket deepest_bracket('(())()') == 2
to_minutes to_minutes('02:10') == 130 | add_minutes-45 add_45('23:30') == '00:15' | clock_text clock_text(7325) == '2:02:05'
is_leap_year is_leap_year(1900) == False | minutes_until minutes_until('23:00', '01:00') == 120
days_in_month days_in_month(9) == 30 | interleave interleave('ac', 'bd') == 'abcd'
shift_letters-3 shift_letters('xyz A') == 'abc A'
run_lengths run_lengths('aaab') == 'a3b1' | to_roman to_roman(29) == 'XXIX' | mirror_alphabet mirror_alphabet('abz') == 'zya'
expand_runs expand_runs('a3b1') == 'aaab' | fewest_coins-3-4 fewest_coins(6) == 2
longest_rise longest_rise([1, 2, 1, 5, 9]) == 3
best_slice best_slice([1, -5, 3, 4]) == 7 | climb_ways-2 climb_ways(4) == 5 | best_trade best_trade([7, 1, 5, 3]) == 4
grid_paths grid_paths(3, 3) == 6 | collatz_steps collatz_steps(3) == 7 | deep_sum deep_sum([1, [2, [3]]]) == 6
flatten flatten([1, [2, [3]]]) == [1, 2, 3] | list_depth list_depth([1, [2, [3]]]) == 3
deep_count deep_count([1, [2, 1]], 1) == 2 | digital_root digital_root(38) == 2 | common_items common_items([3, 1], [3, 3]) == [3]
group_by_letter group_by_letter(['ant', 'bee', 'ape']) == {'a': ['ant', 'ape'], 'b': ['bee']}
chunks-2 chunks_of_2([1, 2, 3]) == [[1, 2], [3]] | most_common most_common([2, 1, 2, 1]) == 1
only_once only_once([1, 2, 1]) == [2] | pairs_with_sum-5 pairs_with_sum_5([1, 4, 2, 3]) == 2
"""

PRINTED_BY_HAND = {
    "sum_line": ("1 2 3", "6"),
    "sum_until_zero": ("2\n3\n0\n9", "5"),
    "running_totals": ("2\n5\n-1", "5\n4"),
    "average_line": ("1 2", "1.50"),
    "largest_gap": ("1 5 3", "4"),
    "reverse_words": ("one two", "two one"),
    "longest_line": ("3\na\nbb\ncc", "bb"),
    "word_counts": ("b a b", "a 1\nb 2"),
    "numbered_lines": ("2\nred\nblue", "1: red\n2: blue"),
    "acronym": ("read it", "RI"),
    "triangle": ("2", "*\n**"),
    "times_table": ("2", "1 2\n2 4"),
    "checkerboard": ("2 3", "#.#\n.#."),
    "frame": ("3 3", "***\n*.*\n***"),
    "diamond": ("3", " *\n***\n *"),
    "robot": ("UURD", "1 1"),
    "queue": ("4\nserve\njoin A\njoin B\nserve", "nobody\nA"),
    "stack_machine": ("2 3 + 4 *", "20"),
    "account": ("3\nin 10\nout 20\nout 4", "6"),
    "elevator": ("3 1", "5"),
}


def skeleton(source: str) -> str:
    """A function less its own name, the names of its variables and the values of its constants."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    bound = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    bound |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.name = "function"
        elif isinstance(node, ast.arg):
            node.arg = names.setdefault(node.arg, f"v{len(names)}")
        elif isinstance(node, ast.Name) and node.id in bound:
            node.id = names.setdefault(node.id, f"v{len(names)}")
        elif isinstance(node, ast.Constant):
            node.value = type(node.value).__name__
    return ast.dump(tree)


def test_the_environment_is_one_and_refuses_a_split_that_it_does_not_have():
    assert isinstance(Code(), Environment)
    with pytest.raises(ValueError, match="train and heldout"):
        Code().tasks("test", 0)


def test_there_are_enough_tasks_of_every_family_on_both_sides():
    assert len(TRAIN) >= 200
    assert len(HELDOUT) >= 80
    assert len({problem.base for problem in PROBLEMS}) == len(PROBLEMS) >= 40
    sides = Counter((problem.family, problem.is_heldout) for problem in PROBLEMS)
    families = {family for family, _ in sides}
    assert len(families) >= 20
    assert {problem.difficulty.value for problem in PROBLEMS} == {"easy", "medium", "hard"}
    assert all(sides[family, False] >= 2 and sides[family, True] >= 2 for family in families)
    assert 0.2 < sum(problem.is_heldout for problem in PROBLEMS) / len(PROBLEMS) < 0.4


def test_the_splits_share_no_task_no_question_and_no_base_function():
    for key in (
        lambda task: task.id,
        lambda task: task.messages[-1].content,
        lambda task: task.id.removeprefix("code/").partition("-")[0],
    ):
        assert not {key(task) for task in TRAIN} & {key(task) for task in HELDOUT}


def test_no_heldout_solution_is_a_training_solution_with_other_names_and_constants():
    sides: dict[bool, set[str]] = {False: set(), True: set()}
    for problem in PROBLEMS:
        sides[problem.is_heldout].add(skeleton(problem.reference(problem.variants[0])))
    assert not sides[False] & sides[True]


def test_no_two_tasks_have_the_same_id_or_question():
    tasks = [*TRAIN, *HELDOUT]
    assert len({task.id for task in tasks}) == len({task.messages[-1].content for task in tasks}) == len(tasks)
    assert all(re.fullmatch(r"code/[a-z_]+(-\w+)*", task.id) for task in tasks)


def test_the_order_depends_on_the_seed_and_the_tasks_do_not():
    assert Code().tasks("train", 0) == TRAIN
    other = Code().tasks("train", 1)
    assert other != TRAIN
    assert sorted(task.id for task in other) == sorted(task.id for task in TRAIN)


def test_the_tasks_are_the_same_in_every_process_and_need_no_heavy_library():
    program = (
        "import pickle, sys, hashlib; from sdpo.envs.code import Code\n"
        "tasks = [*Code().tasks('train', 3), *Code().tasks('heldout', 3)]\n"
        "assert not {'torch', 'ray', 'vllm', 'deepspeed', 'numpy'} & set(sys.modules)\n"
        "assert pickle.loads(pickle.dumps(tasks)) == tasks\n"
        "print(hashlib.sha256(repr(tasks).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": salt}, capture_output=True, check=True, text=True
        ).stdout
        for salt in ("1", "2")
    }
    assert len(digests) == 1


def test_a_question_is_short_and_shows_a_signature_and_a_visible_example():
    for task in FUNCTIONS:
        system, user = task.messages
        assert (system.role, user.role) == (Role.system, Role.user)
        assert len(re.findall(r"\w+|[^\w\s]", user.content)) <= 110  # some 80 tokens: brackets and quotes go together
        assert len(user.content) <= 280
        assert f"\ndef {task.payload.function}(" in user.content
        assert f"returns {task.payload.visible[0].expected!r}" in user.content


def test_no_question_shows_a_solution():
    for problem in FUNCTION_PROBLEMS:
        for variant in problem.variants:
            body = problem.reference(variant).splitlines()[1:]
            assert "\n".join(body) not in problem.task(variant).messages[-1].content


def test_no_constant_passes_the_visible_tests_and_no_hidden_call_is_visible():
    for task in FUNCTIONS:
        assert len({repr(trial.expected) for trial in task.payload.visible}) > 1, task.id
        assert len(task.payload.hidden) >= 2
        shown = {repr(trial.arguments) for trial in task.payload.visible}
        assert not shown & {repr(trial.arguments) for trial in task.payload.hidden}, task.id


def test_references_agree_with_values_worked_out_by_hand():
    references = {
        problem.task(variant).id: problem.reference(variant) for problem in FUNCTION_PROBLEMS for variant in problem.variants
    }
    claims = [claim.strip() for line in HAND_WORKED.strip().splitlines() for claim in line.split(" | ")]
    worked = set()
    for claim in claims:
        name, _, equation = claim.partition(" ")
        namespace: dict[str, object] = {}
        exec(references[f"code/{name}"], namespace)
        assert eval(equation, namespace), claim
        worked.add(name.partition("-")[0])
    assert worked == {problem.base for problem in FUNCTION_PROBLEMS}


def test_reference_programs_print_what_was_worked_out_by_hand():
    for problem in PROGRAM_PROBLEMS:
        stdin, printed = PRINTED_BY_HAND[problem.base]
        [trial] = replace(problem, visible=(stdin,), hidden=()).task(problem.variants[0]).payload.visible
        assert trial.expected.rstrip() == printed, problem.base
    assert PRINTED_BY_HAND.keys() == {problem.base for problem in PROGRAM_PROBLEMS}


def test_a_question_for_a_program_is_short_and_shows_an_example_but_no_solution():
    for problem in PROGRAM_PROBLEMS:
        for variant in problem.variants:
            task = problem.task(variant)
            question, first = task.messages[-1].content, task.payload.visible[0]
            assert len(question) <= 400
            assert f"Example input:\n{first.stdin}\nIts output:\n{first.expected.rstrip()}" in question
            assert problem.reference(variant).strip() not in question


def test_no_fixed_text_passes_the_visible_runs_and_no_hidden_input_is_visible():
    for task in PROGRAMS:
        assert len({trial.expected for trial in task.payload.visible}) > 1, task.id
        assert len(task.payload.hidden) >= 2
        shown = {trial.stdin for trial in task.payload.visible}
        assert not shown & {trial.stdin for trial in task.payload.hidden}, task.id
        assert all(not trial.stdin.endswith("\n") for trial in (*task.payload.visible, *task.payload.hidden))


def test_the_tasks_of_the_first_families_are_those_whose_figures_were_published():
    first = Code(families=FIRST_FAMILIES)
    train, heldout = first.tasks("train", 0), first.tasks("heldout", 0)
    assert (len(train), len(heldout)) == (145, 55)
    asked = [
        (task.id, task.messages, [(trial.arguments, trial.expected) for trial in task.payload.visible + task.payload.hidden])
        for task in train
    ]
    assert sha256(repr(asked).encode()).hexdigest() == "328862b89e4972eb0549b702d6f084c207eaeb17e3aeb1d4ffcb3eea637c700b"


def test_families_and_difficulties_choose_tasks_and_must_leave_some():
    by_difficulty = [{task.id for task in Code(difficulties=[name]).tasks("train", 0)} for name in ("easy", "medium", "hard")]
    assert set().union(*by_difficulty) == {task.id for task in TRAIN}
    assert sum(map(len, by_difficulty)) == len(TRAIN)
    with pytest.raises(ValueError, match=r"env\.options\.families and env\.options\.difficulties must leave tasks"):
        Code(families=["strings"], difficulties=["hard"]).tasks("train", 0)
