"""The gold score of the demo task "warm but not gushing", known only to simulated labelers and the evaluation.

The reward model never sees it; it learns from rankings alone. So the gold score shows whether PPO improved the answers
or only raised the reward model's score.

It judges one short note to somebody, by an explicit formula (see `warm_gold`). Sentiment comes from VADER's lexicon
(Hutto & Gilbert 2014), which is rule-based, offline and deterministic, but rewards any accumulation of positive words.
Three of the terms prevent that: `warmth` decreases above 0.8, `gushing` counts strong praise, and `repetition` counts
repeated words.

Left out: grammar, truth, and whether the note suits its reader. A lexicon also has false positives: "hand", "free" and
"please" always count as warm. People err too; the score is useful because it is the same for every model.
"""

import math
import re
from collections.abc import Hashable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

WARMEST = 0.8
"""The sentiment at which a sentence is as warm as it should be; above it, warmth falls."""

FOLD = 3.0
"""How fast warmth falls above `WARMEST`, per unit of sentiment."""

STRONG = 2.5
"""The valence in VADER's lexicon (-4 to 4) from which a word is strong praise: "lovely" 2.8, but not "kind" 2.4."""

STRONG_ALLOWED = 2
"""Strong words of praise that a note may contain before it gushes."""

WORDS_ALLOWED = 10
"""Maximum words of a note before it is too long: a line, not a letter."""

WORDS_NEEDED = 5
"""Minimum words of a note; with fewer it is curt."""

ECHO_WORDS = 4
"""Words from the start of the prompt that a response may not repeat in a row."""

ADDRESSES = frozenset({"you", "your", "yours"})
"""Words that address the reader, also before an apostrophe ("you're")."""

EMPTY = -2.0
"""The score of a response without a word, before the penalty for not finishing: as cold as possible."""

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_NUMBER_OR_WORD = re.compile(r"\w+(?:'\w+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
_IRREGULAR = {
    "children": "child",
    "leaves": "leaf",
    "men": "man",
    "mice": "mouse",
    "people": "person",
    "teeth": "tooth",
    "women": "woman",
}

_GRAMMAR = frozenset(
    """
    a about above after again all almost alone along already also although always am an and another any anyone
    anything are aren't around as at away back be because been before being below best better between both bought
    but by can can't come could couldn't day days did didn't do does doesn't doing don't done down each either else
    enough even ever every everyone everything far few first for found from gave get gets getting give gives go goes
    going gone good got had hadn't has hasn't have haven't having he he'd he'll he's her here hers herself him
    himself his how i i'd i'll i'm i've if in into is isn't it it'll it's its itself just keep know last late left
    let let's like little long longer look looked looking looks lost lot made make makes many may me met might more
    most much must my myself need needs never new next nice no none nor not nothing now of off often oh old on once
    one only or other our ours out over own please put quite rather really right same see seem seems she she'd
    she'll she's should so some someone something soon still such take than that that's the their theirs them then
    there there's these they they'd they'll they're they've thing things think this those though thought through to
    today together tomorrow tonight too took turn turned turns two under until up upon us use used very was wasn't
    way we we'd we'll we're we've well went were weren't what what's when where whether which while who who's whom
    whose why will with within without won't work worked working works would wouldn't yes yesterday yet you you'd
    you'll you're you've your yours yourself
    """.split()
)
"""Words without a subject: sharing one of them with the prompt does not make an answer on topic."""

_INSTRUCTION = frozenset(
    """
    admire advice answer ask caption card cheer compliment congratulate congratulations describe encourage enjoy
    goodbye greet happiness happy hello help hope introduce invite kind leave like line love luck message note offer
    picture recommend remind reply said say send sent sentence short show speak tell text thank told want welcome
    wish word write wrote
    """.split()
)
"""Words by which a prompt requests a note (what to do, not what about), and polite words that fit any note."""

_PERSON = frozenset(
    """
    aunt baker band barber beekeeper beginner boss boy brother camper caretaker carpenter cashier chef child
    classmate cleaner client coach colleague cousin coworker customer daughter dear dentist doctor driver elderly
    family farmer father fellow firefighter flatmate florist friend gardener girl grandfather grandmother guest
    hiker landlady landlord man mechanic mother musician neighbor neighbour nephew newcomer niece nurse parent
    partner passenger person player porter postman pupil referee roommate sister somebody son stranger student
    tailor teacher team teammate tenant toddler tourist tuner uncle visitor volunteer waiter wife woman young
    """.split()
)
"""Words for the addressee: naming the reader is not naming the subject."""


def warm_gold(prompt: str, response: str, finished: bool) -> float:
    """How good ``response`` is as a short, warm note on the subject that ``prompt`` gives.

        gold = 1.5·tanh(2·warmth) + 1.2·address − 1.5·repetition − 0.5·gushing − 0.5·exclamation
               − 0.3·excess_words − 0.2·missing_words − 0.5·off_topic − echo
               − unfinished

    where ``unfinished`` is 1 if the model was cut before it ended its answer, else 0, and the others are the functions
    of this file. A response without a word scores −2 − unfinished.

    The best possible value is 1.5·tanh(1.6) + 1.2 = 2.583: sentences of sentiment 0.8 each that address the reader,
    finished, on the subject. A plain and friendly phrase ("I think you will enjoy it", 0.494) already earns 2.33 and a
    neutral note that addresses nobody 0, so most of the gain is in becoming warm, and little is to be won by
    exaggeration.

    Source: the shape (2·tanh(2·VADER), −1.5, −0.5, −0.05, −1, −0.5) is that of a trial in which PPO, directly on such a
    gold score, moved SmolLM2 far in ten iterations. Departures: the decrease above 0.8 and ``gushing``, against
    accumulated superlatives, ``missing_words``, against a single word of praise, ``echo``, against repeating the
    request, and ``address``: a reward model of this size did not learn sentiment alone from a thousand noisy
    comparisons (docs/decisions.md). For the same reason a note is too long beyond 10 words, at 0.3 per word, where the
    trial had 22 and 0.05.
    """
    unfinished = 0.0 if finished else 1.0
    if not words(response):
        return EMPTY - unfinished
    return (
        1.5 * math.tanh(2.0 * warmth(response))
        + 1.2 * address(response)
        - 1.5 * repetition(response)
        - 0.5 * gushing(response)
        - 0.5 * exclamation(response)
        - 0.3 * excess_words(response)
        - 0.2 * missing_words(response)
        - 0.5 * off_topic(prompt, response)
        - echo(prompt, response)
        - unfinished
    )


def warmth(response: str) -> float:
    """Mean over the sentences of VADER's compound sentiment c, folded at 0.8: c − 3·max(0, c − 0.8). In [−1, 0.8].

    VADER's c = S/√(S² + 15) for a sum S of word valences, −1 to 1: one "great" gives 0.62, three superlatives 0.9.
    Only a sentence's words count: capitals, exclamation marks, emoticons and emoji earn nothing. Without any sentence,
    warmth is 0.
    """
    folded = [_fold(_compound(sentence)) for sentence in sentences(response)]
    return sum(folded) / len(folded) if folded else 0.0


def address(response: str) -> float:
    """1 if the note addresses its reader ("you", "your", "yours"), else 0: a warm note is to somebody."""
    return 1.0 if ADDRESSES & {word.partition("'")[0] for word in words(response)} else 0.0


def gushing(response: str) -> float:
    """Number of strong words of praise (valence at least 2.5 in VADER's lexicon) beyond two, in the whole response."""
    lexicon = _analyzer().lexicon
    strong = sum(1 for word in words(response) if lexicon.get(word, 0.0) >= STRONG)
    return float(max(0, strong - STRONG_ALLOWED))


def repetition(response: str) -> float:
    """Share of the response that repeats earlier text, in [0, 1): the larger one of two shares.

    Of its content words (stems of words that are not grammar) the share that repeats an earlier one, and of its pairs
    of adjacent words the share that repeats an earlier pair. The first sees "love love love" (2 of 3), the second
    "it is as it is as it is" (3 of 7).
    """
    tokens = _NUMBER_OR_WORD.findall(_plain(response))
    content = [stem(word) for word in tokens if word not in _GRAMMAR]
    return max(_share_repeated(content), _share_repeated(list(pairwise(tokens))))


def exclamation(response: str) -> float:
    """Number of exclamation marks beyond one."""
    return float(max(0, response.count("!") - 1))


def excess_words(response: str) -> float:
    """Number of words, separated by white space, beyond 10."""
    return float(max(0, len(response.split()) - WORDS_ALLOWED))


def missing_words(response: str) -> float:
    """Number of words, separated by white space, missing to five: a single "Lovely!" is no note."""
    return float(max(0, WORDS_NEEDED - len(response.split())))


def off_topic(prompt: str, response: str) -> float:
    """1 if the response shares no subject word with the prompt, else 0; 0 for a prompt that has no subject word."""
    subject = subject_words(prompt)
    if not subject:
        return 0.0
    return 0.0 if subject & _content(response) else 1.0


def echo(prompt: str, response: str) -> float:
    """1 if the response contains the first four words of the prompt in a row, else 0.

    "Thank a colleague for the book." is warm to VADER and on the subject, but it is the request, not the note.
    """
    opening = words(prompt)[:ECHO_WORDS]
    said = words(response)
    starts = range(len(said) - ECHO_WORDS + 1)
    return 1.0 if len(opening) == ECHO_WORDS and any(said[i : i + ECHO_WORDS] == opening for i in starts) else 0.0


@lru_cache(maxsize=4096)
def subject_words(prompt: str) -> frozenset[str]:
    """Stems of the prompt's subject: its words without grammar, request words, and words for the reader."""
    return _content(prompt)


def words(text: str) -> list[str]:
    """The words of a text in lowercase, without numbers and symbols."""
    return _WORD.findall(_plain(text))


def sentences(text: str) -> list[str]:
    """The sentences of a text, separated at . ! ? followed by white space and at line ends; only those with a word."""
    return [part for part in _SENTENCE_END.split(text) if part and _WORD.search(part)]


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A word without its most common endings, so that "baked", "baking", "bakes" and "bake" all become "bak".

    Removes 's, then one of -ies, -ied (for -y), -ing, -ed, -es, -s if three letters remain, then a final -e and a
    doubled last consonant. It uses no dictionary except seven irregular plurals.
    """
    word = word.removesuffix("'s").removesuffix("'")
    word = _IRREGULAR.get(word, word)
    if word.endswith(("ies", "ied")) and len(word) > 4:
        return word[:-3] + "y"
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    if len(word) > 3:
        word = word.removesuffix("e")
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiou":
        word = word[:-1]
    return word


_NO_SUBJECT = frozenset(stem(word) for word in _INSTRUCTION | _PERSON)


def _content(text: str) -> frozenset[str]:
    return frozenset(stem(word) for word in words(text) if word not in _GRAMMAR) - _NO_SUBJECT


def _plain(text: str) -> str:
    return text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def _fold(compound: float) -> float:
    return compound - FOLD * max(0.0, compound - WARMEST)


def _share_repeated(items: Sequence[Hashable]) -> float:
    return 1.0 - len(set(items)) / len(items) if items else 0.0


@lru_cache(maxsize=65536)
def _compound(sentence: str) -> float:
    return float(_analyzer().polarity_scores(" ".join(words(sentence)))["compound"])


@lru_cache(maxsize=1)
def _analyzer() -> Any:
    """VADER's analyzer, loaded once, and only when a gold score is needed."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
