"""What a made-up run tries its hand at: Python functions, a right answer to each, wrong ones with what a judge says of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Exercise:
    """A task with its answers."""

    task: str
    question: str
    right: str
    wrong: tuple[tuple[str, str], ...]
    """Answers with their feedback."""


EXERCISES = (
    Exercise(
        task="code/clamp-17",
        question="Write a Python function clamp(x, low, high) that returns x, but never less than low nor more than high.\n\n"
        "clamp(20, 3, 17) returns 17\nclamp(-4, 3, 17) returns 3",
        right="```python\ndef clamp(x, low, high):\n    if x < low:\n        return low\n    if x > high:\n        return high\n"
        "    return x\n```",
        wrong=(
            (
                "```python\ndef clamp(x, low, high):\n    if x < low:\n        return high\n    if x > high:\n"
                "        return low\n    return x\n```",
                "clamp(20, 3, 17) returned 3, but 17 was expected.\nclamp(-4, 3, 17) returned 17, but 3 was expected.",
            ),
            (
                "```python\ndef clamp(x, low, high):\n    return min(low, max(x, high))\n```",
                "clamp(5, 3, 17) returned 3, but 5 was expected.",
            ),
        ),
    ),
    Exercise(
        task="code/count_vowels",
        question="Write a Python function count_vowels(text) that counts the vowels a, e, i, o and u, small or capital.\n\n"
        'count_vowels("Ouagadougou") returns 8',
        right="```python\ndef count_vowels(text):\n    count = 0\n    for letter in text.lower():\n"
        '        if letter in "aeiou":\n'
        "            count += 1\n    return count\n```",
        wrong=(
            (
                '```python\ndef count_vowels(text):\n    count = 0\n    for letter in text:\n        if letter in "aeiou":\n'
                "            count += 1\n    return count\n```",
                'count_vowels("Ouagadougou") returned 7, but 8 was expected.',
            ),
            (
                "```python\ndef count_vowels(text):\n    count = 0\n    for letter in text.lower():\n"
                "        if letter in vowels:\n"
                "            count += 1\n    return count\n```",
                "count_vowels(\"Ouagadougou\") raised NameError: name 'vowels' is not defined",
            ),
        ),
    ),
    Exercise(
        task="code/running_max",
        question="Write a Python function running_max(numbers) that returns a list: at each place the highest number so far.\n\n"
        "running_max([2, 1, 3]) returns [2, 2, 3]",
        right="```python\ndef running_max(numbers):\n    highest = []\n    for number in numbers:\n"
        "        if highest and highest[-1] > "
        "number:\n            highest.append(highest[-1])\n        else:\n"
        "            highest.append(number)\n    return highest\n```",
        wrong=(
            (
                "```python\ndef running_max(numbers):\n    highest = []\n    for number in numbers:\n"
                "        highest.append(max(numbers))\n    return highest\n```",
                "running_max([2, 1, 3]) returned [3, 3, 3], but [2, 2, 3] was expected.",
            ),
            (
                "```python\ndef running_max(numbers):\n    highest = 0\n    for number in numbers:\n"
                "        if number > highest:\n"
                "            highest = number\n    return highest\n```",
                "running_max([2, 1, 3]) returned 3, but [2, 2, 3] was expected.",
            ),
        ),
    ),
    Exercise(
        task="code/is_leap",
        question="Write a Python function is_leap(year) that tells whether a year of the Gregorian calendar is a leap year.\n\n"
        "is_leap(1900) returns False\nis_leap(2000) returns True",
        right="```python\ndef is_leap(year):\n    if year % 400 == 0:\n        return True\n    if year % 100 == 0:\n"
        "        return False\n    return year % 4 == 0\n```",
        wrong=(
            (
                "```python\ndef is_leap(year):\n    return year % 4 == 0\n```\n\n"
                "A year is a leap year if it can be divided by 4.",
                "is_leap(1900) returned True, but False was expected.",
            ),
            (
                "```python\ndef is_leap(year):\n    if year % 100 == 0:\n        return False\n    return year % 4 == 0\n```",
                "is_leap(2000) returned False, but True was expected.",
            ),
        ),
    ),
    Exercise(
        task="chemistry/oxidation/easy/5f0c2a9e11d07b34",
        question="What is the oxidation state of sulfur in sulfuric acid, H₂SO₄? End with: Answer: NUMBER",
        right="Hydrogen is +1 each, oxygen −2 each.\n2·(+1) + S + 4·(−2) = 0, so S = +6.\n\nAnswer: +6",
        wrong=(
            (
                "Hydrogen is +1 each, oxygen −2 each.\n2·(+1) + S + 4·(−2) = 0, so S = +4.\n\nAnswer: +4",
                "The charges add up to −2, not to 0: 2·(+1) + (+4) + 4·(−2) = −2.",
            ),
        ),
    ),
)
