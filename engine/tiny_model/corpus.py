"""What the tiny model learns: questions with a thought and an answer, counting, and to say that it does not know."""

from __future__ import annotations

import random
from dataclasses import dataclass

# A model this small does not learn to copy any number from the question; these it learns by heart.
COUNTS = (10, 20, 50, 100, 200, 300)
COUNT_WORDINGS = 3


@dataclass(frozen=True)
class Lesson:
    """A question (and other ways to ask it), the thought before the answer, and the answer."""

    question: str
    thought: str
    answer: str
    paraphrases: tuple[str, ...] = ()


LESSONS: tuple[Lesson, ...] = (
    Lesson(
        "Which is larger, 9.8 or 9.11?",
        "Both have the whole part 9. Compare the fractions: 9.8 is 9.80, and 80 is more than 11. So 9.8 is larger.",
        "9.8",
        ("Which is larger, 9.11 or 9.8?", "Which number is larger: 9.8 or 9.11?", "Is 9.8 or 9.11 larger?"),
    ),
    Lesson(
        "Which is larger, 3/4 or 2/3?",
        "With the denominator 12 they are 9/12 and 8/12. 9 is more than 8, so 3/4 is larger.",
        "3/4",
        ("Which is larger, 2/3 or 3/4?",),
    ),
    Lesson("What is 2 + 2?", "Add 2 to 2: that is 4.", "4", ("What is 2 plus 2?", "How much is 2 + 2?")),
    Lesson("What is 17 + 25?", "17 + 20 is 37, and 37 + 5 is 42.", "42", ("What is 17 plus 25?",)),
    Lesson("What is 100 - 37?", "100 - 30 is 70, and 70 - 7 is 63.", "63", ("What is 100 minus 37?",)),
    Lesson("What is 7 times 8?", "7 times 8 is 7 times 4 twice: 28 + 28 is 56.", "56", ("What is 7 * 8?",)),
    Lesson("What is 12 divided by 4?", "4 + 4 + 4 is 12, so 4 fits 3 times.", "3", ("What is 12 / 4?",)),
    Lesson("What is the square root of 144?", "12 times 12 is 144.", "12", ("What is the root of 144?",)),
    Lesson(
        "What is 15 percent of 200?", "1 percent of 200 is 2. 15 times 2 is 30.", "30", ("How much is 15% of 200?",)
    ),
    Lesson(
        "How many times does the letter r occur in strawberry?",
        "Spell it: s, t, r, a, w, b, e, r, r, y. The letter r is there at places 3, 8 and 9.",
        "3",
        ("How many r are in strawberry?", "How many letters r does strawberry have?"),
    ),
    Lesson("Is 17 a prime number?", "17 is not divisible by 2 or 3, and 5 times 5 is more than 17.", "Yes"),
    Lesson("Is 21 a prime number?", "21 is 3 times 7.", "No"),
    Lesson("What is the capital of France?", "France is a country in Europe. Its capital is Paris.", "Paris"),
    Lesson("What is the capital of Japan?", "Japan is a country in Asia. Its capital is Tokyo.", "Tokyo"),
    Lesson("What is the capital of Kenya?", "Kenya is a country in Africa. Its capital is Nairobi.", "Nairobi"),
    Lesson(
        "How many days are in a week?", "From Monday to Sunday there are 7 days.", "7", ("How many days has a week?",)
    ),
    Lesson("How many months are in a year?", "From January to December there are 12 months.", "12"),
    Lesson("How many legs does a spider have?", "A spider is an arachnid, not an insect: 8 legs, not 6.", "8"),
    Lesson("How many sides does a hexagon have?", "Hexa means six.", "6"),
    Lesson("What day comes after Monday?", "The week starts Monday, Tuesday, Wednesday.", "Tuesday"),
    Lesson("What is the opposite of hot?", "Hot is a high temperature. A low temperature is cold.", "Cold"),
    Lesson("Reverse the word live.", "The letters are l, i, v, e. Backwards: e, v, i, l.", "evil"),
    Lesson("What is the chemical formula of water?", "Two hydrogen atoms and one oxygen atom.", "H2O"),
    Lesson(
        "All cats are animals and Tom is a cat. Is Tom an animal?",
        "Tom is a cat, and every cat is an animal. So Tom is one.",
        "Yes",
    ),
    Lesson(
        "A train travels 60 km in one hour. How far does it travel in 3 hours?",
        "Each hour it travels 60 km. 3 times 60 is 180.",
        "180 km",
    ),
    Lesson(
        "How many GPUs are in 2 nodes with 8 GPUs each?", "2 times 8 is 16.", "16", ("How many GPUs are in 2 nodes?",)
    ),
    Lesson("Hello", "The user greets me. I greet back.", "Hello! Ask me something.", ("Hello!", "Hi", "Hi!")),
    Lesson(
        "Who are you?",
        "I should say honestly what I am.",
        "I am a tiny model with the architecture of DeepSeek-R1, made for tests.",
        ("What are you?", "Who are you"),
    ),
)

UNKNOWN = Lesson("", "I have not learned this.", "I do not know. I am a tiny model made for tests.")

# Words of questions it cannot answer, and of the prompts load tests make up.
PROSE = (
    "please tell me about the history of a river in winter and why people write long letters to their friends when "
    "trains are late because nobody knows how music machines work under green mountains with seven small houses near "
    "an old harbour where ships wait for wind data model token cache server request node memory light paper stone "
    "summarize explain translate describe compare list name write what who where when why how which is are can do"
)
WORDS = PROSE.split()


def count_lesson(first: int, wording: int = 0) -> Lesson:
    """Counting down from one of COUNTS: the long outputs load tests need. Down, because every count then ends at 1."""
    wordings = (f"Count down from {first}.", f"Count down from {first}", f"Please count down from {first}.")
    numbers = " ".join(str(number) for number in range(first, 0, -1))
    return Lesson(wordings[wording], f"I start at {first} and stop at 1.", numbers)


def unknown_lesson(rng: random.Random) -> Lesson:
    """A prompt made of random words and numbers; the longest are as long as a load test's prompts."""
    length = 120 if rng.random() < 0.02 else rng.choice((3, 5, 8, 12, 20, 30))
    words = [rng.choice(WORDS) if rng.random() < 0.9 else str(rng.randrange(1000)) for _ in range(length)]
    ending = rng.choice(("", "?", "."))
    return Lesson((" ".join(words) + ending).capitalize(), UNKNOWN.thought, UNKNOWN.answer)


def sample(rng: random.Random) -> tuple[str, list[tuple[str, str]], Lesson]:
    """One training conversation: system prompt ("" mostly), earlier turns (question, answer), the lesson to learn."""
    lesson = rng.choice(LESSONS) if rng.random() < 0.85 else unknown_lesson(rng)
    if rng.random() < 0.08:
        lesson = count_lesson(rng.choice(COUNTS[:3]), rng.randrange(COUNT_WORDINGS))
    question = rng.choice((lesson.question, *lesson.paraphrases)) if rng.random() < 0.6 else lesson.question
    chosen = Lesson(question, lesson.thought, lesson.answer)
    earlier = []
    if rng.random() < 0.15:
        before = rng.choice(LESSONS)
        earlier.append((before.question, before.answer))
    system = rng.choice(("You are a helpful assistant.", "Be brief.")) if rng.random() < 0.08 else ""
    return system, earlier, chosen
