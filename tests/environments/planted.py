"""Environments with one fault each, and the findings that it must get. ``SOUND`` is what each of them would be without it."""

from __future__ import annotations

from typing import NamedTuple


class Planted(NamedTuple):
    """A fault."""

    findings: tuple[str, ...]
    """``"error leak"``: each that must be found, and no other."""
    body: str
    """What the class has instead of what ``SOUND`` has."""
    base: str = "Sound"
    """``"Sound"``, or ``"Guessing"``, which replies."""


SOUND = '''
import contextlib, dataclasses, decimal, itertools, json, locale, os, random, re, socket, sys, tempfile, threading, time
from sdpo.types import Message, Role, Task, Verdict

WORDS = {"train": ("stone", "river", "cloud"), "heldout": ("apple", "light")}
HERE = os.path.dirname(os.path.abspath(__file__))

class Sound:
    """Words to be written backwards."""
    name = "words"

    def tasks(self, split, seed):
        if split not in WORDS:
            raise ValueError(f"there are the splits {', '.join(WORDS)}; got {split!r}")
        return [self.task(word, word) for word in WORDS[split]]

    def task(self, id, word, **changed):
        messages = (Message(role=Role.user, content=self.question(word)),)
        return Task(**{"id": f"words/{id}", "env": self.name, "messages": messages, "payload": word, **changed})

    def question(self, word):
        return f"Write {word} backwards."

    def verify(self, task, completion):
        is_right = self.is_right(task, completion)
        feedback = None if is_right else self.feedback(task, completion)
        return Verdict(reward=float(is_right), feedback=feedback, metrics=self.metrics(task, completion))

    def is_right(self, task, completion):
        return completion.strip() == self.reference(task)

    def feedback(self, task, completion):
        return f"{len(completion)} letters, and not in the order that was asked for."

    def metrics(self, task, completion):
        return {}

    def reference(self, task):
        return task.payload[::-1]

class Guessing(Sound):
    """The same in at most four turns."""

    def judge(self, task, transcript):
        return super().verify(task, transcript[-1].content)

    def reply(self, task, transcript):
        said = [message.content for message in transcript if message.role is Role.assistant]
        if self.is_right(task, said[-1]) or len(said) >= 4:
            return None
        return self.said(task, said)

    def said(self, task, said):
        return f"That was guess {len(said)}; it has {len(said[-1])} letters."
'''

PLANTED = {
    # tasks()
    "tasks that are counted for ever": Planted(
        ("error endless-tasks",),
        """
        def tasks(self, split, seed):
            return [self.task(str(number), str(number)) for number in itertools.count()]
        """,
    ),
    "tasks that wait for ever": Planted(
        ("error endless-tasks",),
        """
        def tasks(self, split, seed):
            threading.Event().wait()
        """,
    ),
    "tasks whose length never comes": Planted(
        ("error endless-tasks",),
        """
        def tasks(self, split, seed):
            class Lazy(list):
                def __len__(self):
                    while True:
                        pass
            return Lazy(super().tasks(split, seed))
        """,
    ),
    "tasks that try again for ever, whatever is raised": Planted(
        ("error endless-tasks",),
        """
        def tasks(self, split, seed):
            while True:
                try:
                    time.sleep(0.01)
                except Exception:
                    pass
        """,
    ),
    "held-out tasks that never end": Planted(
        ("error endless-tasks",),
        """
        def tasks(self, split, seed):
            while split == "heldout":
                pass
            return super().tasks(split, seed)
        """,
    ),
    "tasks of another seed that never end": Planted(
        ("error endless-tasks",),
        """
        def tasks(self, split, seed):
            while seed == 1:
                pass
            return super().tasks(split, seed)
        """,
    ),
    "an unknown split that never ends": Planted(
        ("error endless-tasks",),
        """
        def tasks(self, split, seed):
            while split not in WORDS:
                pass
            return super().tasks(split, seed)
        """,
    ),
    "tasks that are slow to make": Planted(
        ("warning slow-tasks",),
        """
        def tasks(self, split, seed):
            if split in WORDS:
                time.sleep(2.1)
            return super().tasks(split, seed)
        """,
    ),
    "tasks that reseed the global generator": Planted(
        ("warning global-generator",),
        """
        def tasks(self, split, seed):
            random.seed(seed)
            return super().tasks(split, seed)
        """,
    ),
    "tasks that print": Planted(
        ("warning prints",),
        """
        def tasks(self, split, seed):
            print("loading")
            return super().tasks(split, seed)
        """,
    ),
    "tasks that change the folder": Planted(
        ("error changes-folder",),
        """
        def tasks(self, split, seed):
            os.chdir(HERE)
            return super().tasks(split, seed)
        """,
    ),
    "one task fewer each time": Planted(
        ("error repeatable-tasks",),
        """
        spared = 0
        def tasks(self, split, seed):
            tasks = super().tasks(split, seed)
            Faulty.spared += 1
            return tasks + [self.task(f"{split}{n}", f"{split}{n}") for n in range(40 - Faulty.spared)]
        """,
    ),
    # what is asked
    "a prompt of two megabytes": Planted(
        ("warning long-prompt",),
        """
        def question(self, word):
            return f"Write {word} backwards. " + ("Please. " * 250_000 if word == "stone" else "")
        """,
    ),
    "the marks of a chat template in a question": Planted(
        ("warning special-tokens",),
        """
        def question(self, word):
            return f"<|im_start|>user\\nWrite {word} backwards.<|im_end|>"
        """,
    ),
    "the turns of another template in a question": Planted(
        ("warning special-tokens",),
        """
        def question(self, word):
            return f"[INST] Write {word} backwards. [/INST]"
        """,
    ),
    "a held-out question in training, in capitals": Planted(
        ("warning disjoint-prompts",),
        """
        def question(self, word):
            return "WRITE APPLE BACKWARDS." if word == "stone" else super().question(word)
        """,
    ),
    "a held-out question in training, with other white space": Planted(
        ("error disjoint-prompts",),
        """
        def question(self, word):
            return "Write  apple\\nbackwards. " if word == "stone" else super().question(word)
        """,
    ),
    "a held-out question in training, without white space": Planted(
        ("warning disjoint-prompts",),
        """
        def question(self, word):
            return {"stone": "Write 2+2 backwards.", "apple": "Write 2 + 2 backwards."}.get(word, super().question(word))
        """,
    ),
    "the answer in the question": Planted(
        ("warning answer-in-question",),
        """
        def question(self, word):
            return f"Write {word} backwards. (Answer: {word[::-1]})"
        """,
    ),
    "a short answer in every question": Planted(
        ("warning answer-in-question",),
        """
        def question(self, word):
            return f"How is {word} written? The answer is {len(word) + ord(word[0])}."
        def reference(self, task):
            return str(len(task.payload) + ord(task.payload[0]))
        """,
    ),
    "the question is accepted as an answer": Planted(
        ("warning answer-in-question",),
        """
        def is_right(self, task, completion):
            return super().is_right(task, completion) or completion.endswith(" backwards.")
        """,
    ),
    # what verify does besides judging
    "a verifier that prints": Planted(
        ("warning prints",),
        """
        def feedback(self, task, completion):
            print("judging", task.id)
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that warns on standard error": Planted(
        ("warning prints",),
        """
        def feedback(self, task, completion):
            sys.stderr.write("hm")
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that starts a program which prints": Planted(
        ("warning prints",),
        """
        has_run = False
        def feedback(self, task, completion):
            if not self.has_run:
                self.has_run = True
                os.system("echo judging")
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that empties its payload": Planted(
        ("error mutates-payload", "error repeatable-verdicts"),
        """
        def task(self, id, word):
            return super().task(id, word, payload=[word])
        def reference(self, task):
            return task.payload[0][::-1] if task.payload else "?"
        def feedback(self, task, completion):
            return "It was " + ("wrong." if [task.payload.pop() for _ in task.payload[:1]] else "empty.")
        """,
    ),
    "a verifier that sorts its payload": Planted(
        ("error mutates-payload",),
        """
        def task(self, id, word):
            return super().task(id, word, payload=list(word))
        def reference(self, task):
            return "".join(sorted(task.payload))
        def feedback(self, task, completion):
            task.payload.sort()
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that counts in its payload": Planted(
        ("error mutates-payload",),
        """
        def task(self, id, word):
            return super().task(id, word, payload={"word": word, "asked": 0})
        def reference(self, task):
            return task.payload["word"][::-1]
        def feedback(self, task, completion):
            task.payload["asked"] += 1
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that keeps a log beside itself": Planted(
        ("warning writes-files",),
        """
        def feedback(self, task, completion):
            with open(os.path.join(HERE, "judged.log"), "a") as log:
                log.write(task.id)
            return super().feedback(task, completion)
        """,
    ),
    "a scratch file whose name is fixed": Planted(
        ("warning writes-files",),
        """
        def feedback(self, task, completion):
            with open(os.path.join(tempfile.gettempdir(), "sdpo_planted_answer.txt"), "w") as file:
                file.write(ascii(completion)[:100])
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that makes folders": Planted(
        ("warning writes-files",),
        """
        def feedback(self, task, completion):
            os.makedirs(os.path.join(HERE, "answers", task.payload), exist_ok=True)
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that removes files": Planted(
        ("warning writes-files",),
        """
        def feedback(self, task, completion):
            with contextlib.suppress(OSError):
                os.remove(os.path.join(HERE, "stale"))
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that changes the folder": Planted(
        ("error changes-folder",),
        """
        def feedback(self, task, completion):
            os.chdir(HERE)
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that asks a server": Planted(
        ("warning network",),
        """
        def feedback(self, task, completion):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 9), timeout=0.2):
                pass
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that sends packets": Planted(
        ("warning network",),
        """
        def feedback(self, task, completion):
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"judged", ("127.0.0.1", 9))
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that leaves threads": Planted(
        ("warning leaves-threads",),
        """
        def feedback(self, task, completion):
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that leaves files open": Planted(
        ("warning leaves-files-open",),
        """
        kept = []
        def feedback(self, task, completion):
            if len(self.kept) < 200:
                self.kept.append(open(os.devnull))
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that reseeds the global generator": Planted(
        ("warning global-generator",),
        """
        def feedback(self, task, completion):
            random.seed(0)
            return f"{super().feedback(task, completion)} {random.random():.3f}"
        """,
    ),
    "a verifier that draws from the global generator": Planted(
        ("warning global-generator",),
        """
        def feedback(self, task, completion):
            random.shuffle(list(completion[:9] + "more"))
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that reseeds numpy": Planted(
        ("warning global-generator",),
        """
        def feedback(self, task, completion):
            import numpy
            numpy.random.seed(7)
            numpy.random.random(len(completion) % 5)
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that sets a variable of the environment": Planted(
        ("warning process-state",),
        """
        def feedback(self, task, completion):
            os.environ["JUDGED"] = task.id
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that raises the recursion limit": Planted(
        ("warning process-state",),
        """
        def feedback(self, task, completion):
            sys.setrecursionlimit(12_345)
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that lets integers have any number of digits": Planted(
        ("warning process-state",),
        """
        def feedback(self, task, completion):
            sys.set_int_max_str_digits(0)
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that calculates with few digits": Planted(
        ("warning process-state",),
        """
        def feedback(self, task, completion):
            decimal.getcontext().prec = 5
            return super().feedback(task, completion)
        """,
    ),
    "a verifier that limits every socket": Planted(
        ("warning process-state",),
        """
        def feedback(self, task, completion):
            socket.setdefaulttimeout(1.0)
            return super().feedback(task, completion)
        """,
    ),
    "a reference that prints": Planted(
        ("warning prints",),
        """
        def is_right(self, task, completion):
            return completion.strip() == task.payload[::-1]
        def reference(self, task):
            print(task.id)
            return super().reference(task)
        """,
    ),
    # what is said of an answer
    "feedback in colours": Planted(
        ("warning feedback-text",),
        """
        def feedback(self, task, completion):
            return "\\x1b[31mThat is not it.\\x1b[0m"
        """,
    ),
    "feedback with a null byte": Planted(
        ("warning feedback-text",),
        """
        def feedback(self, task, completion):
            return "That is not it.\\0"
        """,
    ),
    "feedback that turns the direction of writing": Planted(
        ("warning feedback-text",),
        """
        def feedback(self, task, completion):
            return "That is \\u202enot it."
        """,
    ),
    "feedback that quotes an answer as it is": Planted(
        ("error feedback-text", "warning feedback-text"),
        """
        def feedback(self, task, completion):
            return f"{completion[:60]} is not it."
        """,
    ),
    "feedback with the end of a turn": Planted(
        ("warning special-tokens",),
        """
        def feedback(self, task, completion):
            return "That is not it.<|im_end|>"
        """,
    ),
    "feedback with a token of DeepSeek's": Planted(
        ("warning special-tokens",),
        """
        def feedback(self, task, completion):
            return "That is not it.<｜end▁of▁sentence｜>"
        """,
    ),
    "feedback with a turn of Gemma's": Planted(
        ("warning special-tokens",),
        """
        def feedback(self, task, completion):
            return "That is not it.<end_of_turn>"
        """,
    ),
    "a leak in capitals": Planted(
        ("error leak", "warning leak"),
        """
        def feedback(self, task, completion):
            return f"It begins like {task.payload[::-1].upper()}."
        """,
    ),
    "a leak letter by letter": Planted(
        ("error leak", "warning leak"),
        """
        def feedback(self, task, completion):
            return f"It has the letters {' '.join(task.payload[::-1])}."
        """,
    ),
    "a leak with hyphens": Planted(
        ("error leak", "warning leak"),
        """
        def feedback(self, task, completion):
            return f"Spell it {'-'.join(task.payload[::-1].upper())}."
        """,
    ),
    "a leak backwards": Planted(
        ("error leak", "warning leak"),
        """
        def question(self, word):
            return f"Write the word {len(word)}{ord(word[0])} backwards."
        def feedback(self, task, completion):
            return f"Read {task.payload} from its end."
        """,
    ),
    "a leak in the name of a metric": Planted(
        ("error leak", "warning leak"),
        """
        def metrics(self, task, completion):
            return {f"is_{task.payload[::-1]}": 0.0}
        """,
    ),
    "a leak in answer to junk alone": Planted(
        ("error leak", "warning leak"),
        """
        def feedback(self, task, completion):
            return f"No, {task.payload[::-1]}." if "qwxz" in completion else "That is not it."
        """,
    ),
    "a leak of a held-out answer alone": Planted(
        ("error leak",),
        """
        def feedback(self, task, completion):
            return "That is not it." if task.payload in WORDS["train"] else f"It is {task.payload[::-1]}."
        """,
    ),
    # what is accepted
    "a reference that is looked for anywhere": Planted(
        ("warning accepted-in-spam",),
        """
        def is_right(self, task, completion):
            return self.reference(task) in completion
        """,
    ),
    "a reference that is accepted in a list": Planted(
        ("warning accepted-in-spam",),
        """
        def is_right(self, task, completion):
            return self.reference(task) in [part.strip() for part in completion.split(",")]
        """,
    ),
    "a reference that is accepted on any line": Planted(
        ("warning accepted-in-spam",),
        """
        def is_right(self, task, completion):
            return self.reference(task) in completion.splitlines()
        """,
    ),
    "a reference that is accepted twice": Planted(
        ("warning accepted-in-spam",),
        """
        def is_right(self, task, completion):
            return set(completion.split()) == {self.reference(task)}
        """,
    ),
    "a number that is looked for anywhere": Planted(
        ("warning accepted-in-spam",),
        """
        def is_right(self, task, completion):
            return self.reference(task) in re.findall(r"\\d+", completion)
        def reference(self, task):
            return str(1000 + 7 * sum(map(ord, task.payload)))
        """,
    ),
    "any pair of tags that is accepted": Planted(
        ("warning accepted-in-spam",),
        """
        def is_right(self, task, completion):
            return self.reference(task) in re.findall("<answer>[a-z]*</answer>", completion)
        def reference(self, task):
            return f"<answer>{task.payload[::-1]}</answer>"
        """,
    ),
    "a reward for anything long": Planted(
        ("warning accepted-in-spam", "warning easy-reward"),
        """
        def is_right(self, task, completion):
            return super().is_right(task, completion) or "qwxz" in completion
        """,
    ),
    # conversations
    "a reply that leaks": Planted(
        ("error leak", "warning leak"),
        """
        def said(self, task, said):
            return f"Try {task.payload[::-1]}."
        """,
        base="Guessing",
    ),
    "a reply that leaks in capitals, at last": Planted(
        ("error leak", "warning leak"),
        """
        def said(self, task, said):
            return f"Try {task.payload[::-1].upper()}." if len(said) == 3 else "No."
        """,
        base="Guessing",
    ),
    "an empty reply": Planted(
        ("error reply",),
        """
        def said(self, task, said):
            return ""
        """,
        base="Guessing",
    ),
    "a blank reply in the second turn": Planted(
        ("error reply",),
        """
        def said(self, task, said):
            return "No." if len(said) == 1 else " \\n"
        """,
        base="Guessing",
    ),
    "a reply that raises from the third turn": Planted(
        ("error reply",),
        """
        def said(self, task, said):
            return ("No.", "Not yet.")[len(said) - 1]
        """,
        base="Guessing",
    ),
    "a reply that is a number in the third turn": Planted(
        ("error reply",),
        """
        def said(self, task, said):
            return "No." if len(said) < 3 else len(said)
        """,
        base="Guessing",
    ),
    "a conversation without an end": Planted(
        ("warning endless-reply",),
        """
        def reply(self, task, transcript):
            return None if self.is_right(task, transcript[-1].content) else "Again."
        """,
        base="Guessing",
    ),
    "a conversation that goes on after the right answer": Planted(
        ("warning endless-reply",),
        """
        def reply(self, task, transcript):
            return "Again." if len(transcript) < 4 else None
        """,
        base="Guessing",
    ),
    "a reply that never comes": Planted(
        ("error hangs",),
        """
        def said(self, task, said):
            while True:
                pass
        """,
        base="Guessing",
    ),
    "a reply that remembers": Planted(
        ("error repeatable-replies",),
        """
        num_said = 0
        def said(self, task, said):
            self.num_said += 1
            return f"That was reply {self.num_said}."
        """,
        base="Guessing",
    ),
    "a reply that is drawn": Planted(
        ("error repeatable-replies", "warning global-generator"),
        """
        def said(self, task, said):
            return f"I am {random.randrange(10**9)} % sure that this is wrong."
        """,
        base="Guessing",
    ),
    "a reply that prints": Planted(
        ("warning prints",),
        """
        def said(self, task, said):
            print(said[-1].encode("utf-8", "replace"))
            return "No."
        """,
        base="Guessing",
    ),
    "a reply in colours": Planted(
        ("warning feedback-text",),
        """
        def said(self, task, said):
            return "\\x1b[31mNo.\\x1b[0m"
        """,
        base="Guessing",
    ),
    "a reply with the end of a turn": Planted(
        ("warning special-tokens",),
        """
        def said(self, task, said):
            return "No.<|eot_id|>"
        """,
        base="Guessing",
    ),
    "a dialogue whose verdict raises": Planted(
        ("error verify-raises",),
        """
        def judge(self, task, transcript):
            return super().judge(task, transcript) if 1 // (len(transcript) < 5) else None
        """,
        base="Guessing",
    ),
    "a dialogue whose verdict is a number": Planted(
        ("error verdict",),
        """
        def judge(self, task, transcript):
            return super().judge(task, transcript) if len(transcript) < 5 else 0.0
        """,
        base="Guessing",
    ),
}
THIN = ("a verifier that keeps a log beside itself", "a leak letter by letter", "a reply that raises from the third turn")
"""Those that ``make test`` has."""
