"""The tasks of the code environment: right, small, and apart."""

import ast
import re
import subprocess
import sys
from collections import Counter

import pytest

from sdpo.envs.base import Environment, Role
from sdpo.envs.code import Code
from sdpo.envs.code.problem import load_problems

PROBLEMS = load_problems()
TRAIN = Code().tasks("train", 0)
HELDOUT = Code().tasks("heldout", 0)

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
"""


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
    assert len(TRAIN) > 100
    assert len(HELDOUT) >= 40
    assert len({problem.base for problem in PROBLEMS}) == len(PROBLEMS) >= 40
    sides = Counter((problem.family, problem.is_heldout) for problem in PROBLEMS)
    families = {family for family, _ in sides}
    assert len(families) >= 8
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
    for task in (*TRAIN, *HELDOUT):
        system, user = task.messages
        assert (system.role, user.role) == (Role.system, Role.user)
        assert len(re.findall(r"\w+|[^\w\s]", user.content)) <= 110  # some 80 tokens: brackets and quotes go together
        assert len(user.content) <= 280
        assert f"\ndef {task.payload.function}(" in user.content
        assert f"returns {task.payload.visible[0].expected!r}" in user.content


def test_no_question_shows_a_solution():
    for problem in PROBLEMS:
        for variant in problem.variants:
            body = problem.reference(variant).splitlines()[1:]
            assert "\n".join(body) not in problem.task(variant).messages[-1].content


def test_no_constant_passes_the_visible_tests_and_no_hidden_call_is_visible():
    for task in (*TRAIN, *HELDOUT):
        assert len({repr(trial.expected) for trial in task.payload.visible}) > 1, task.id
        assert len(task.payload.hidden) >= 2
        shown = {repr(trial.arguments) for trial in task.payload.visible}
        assert not shown & {repr(trial.arguments) for trial in task.payload.hidden}, task.id


def test_references_agree_with_values_worked_out_by_hand():
    references = {problem.task(variant).id: problem.reference(variant) for problem in PROBLEMS for variant in problem.variants}
    claims = [claim.strip() for line in HAND_WORKED.strip().splitlines() for claim in line.split(" | ")]
    worked = set()
    for claim in claims:
        name, _, equation = claim.partition(" ")
        namespace: dict[str, object] = {}
        exec(references[f"code/{name}"], namespace)
        assert eval(equation, namespace), claim
        worked.add(name.partition("-")[0])
    assert worked == {problem.base for problem in PROBLEMS}
