"""Words for a score: fake, real, unsure, not applicable, of a face, a person, a picture, a clip.

Pure rules; `judging` applies them. The thresholds are those of `calibration`, fixed on validation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Protocol

from bonaface.calibration import OperatingPoint
from bonaface.errors import ConfigError
from bonaface.provenance import Provenance

Answer = Literal["fake", "real", "unsure", "not_applicable"]

SCHEMA_VERSION: Final = 1
RULE: Final = (
    "fake if a face is fake, else unsure if a face is unsure, else real; "
    "faces that could not be judged do not count"
)
PERSON_RULE: Final = (
    "by the mean over the frames; a person who would be real is unsure where at least 3 frames, "
    "and a tenth of them, look fake by themselves"
)
_FEWEST_FRAMES: Final = 3
_FAKE_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Bands:
    """Between which scores an answer lies, at a prevalence of fakes.

    Scores are calibrated given as many fakes as reals. At another prevalence the posterior of a
    score differs, and an answer must then be as probable as it is at one half: below one half
    `fake_above` rises, above it `real_below` falls. Neither moves the other way, so that the error
    rates that the thresholds were chosen for are kept.

    Attributes:
        prevalence: share of fakes among the pictures that come in, in (0, 1).
        fake_above: the score from which the answer is fake; above 1 no score is.
        real_below: the score under which the answer is real.
    """

    prevalence: float
    fake_above: float
    real_below: float

    @classmethod
    def at(cls, prevalence: float, fake_above: float, real_below: float) -> Bands:
        """The bands of two thresholds chosen at one half.

        Raises:
            ConfigError: the prevalence does not lie between 0 and 1.
        """
        if not 0 < prevalence < 1:
            raise ConfigError(
                f"expected a prevalence between 0 and 1 (1 fake in 100: 0.01), got {prevalence}; "
                "give the share of fakes among the pictures that reach you"
            )
        return cls(
            prevalence,
            max(fake_above, _moved(fake_above, 1 - prevalence)),
            min(real_below, _moved(real_below, 1 - prevalence)),
        )

    def posterior(self, score: float) -> float:
        """P(fake) of a score at this prevalence (Bayes)."""
        return _moved(score, self.prevalence)

    def answer(self, score: float) -> Answer:
        """The word for a score."""
        if score >= self.fake_above:
            return "fake"
        return "real" if score < self.real_below else "unsure"


def _moved(probability: float, prior: float) -> float:
    """A probability given at even odds, at those of a prior; outside [0, 1] it stays."""
    if not 0 < probability < 1:
        return probability
    fake, real = probability * prior, (1 - probability) * (1 - prior)
    return fake / (fake + real)


@dataclass(frozen=True, slots=True)
class Stability:
    """A face's scores as they would be after re-delivery.

    Attributes:
        low: the lowest score, that of the picture as it came included.
        high: the highest.
        scores: by delivery, as in `corruptions.DELIVERIES`.
        flips: deliveries after which the answer would be another one.
    """

    low: float
    high: float
    scores: dict[str, float]
    flips: tuple[str, ...]

    @classmethod
    def of(cls, score: float, delivered: Mapping[str, float], bands: Bands) -> Stability:
        """From the score of a face as it came, and its scores by delivery."""
        every = [score, *delivered.values()]
        word = bands.answer(score)
        flips = tuple(name for name, value in delivered.items() if bands.answer(value) != word)
        return cls(min(every), max(every), dict(delivered), flips)


@dataclass(frozen=True, slots=True)
class FaceVerdict:
    """What can be said of one face of a photo.

    Attributes:
        number: from 1, the largest face first.
        answer: fake, real, unsure or not_applicable.
        reason: one sentence for a person.
        score: calibrated P(fake) in [0, 1], given as many fakes as reals; None: not judged.
        posterior: P(fake) at the prevalence; None: not judged.
        box: left, top, right, bottom in pixels; None where no face was looked for.
        landmarks: (x, y) of the eyes, the nose, the corners of the mouth, left before right.
        confidence: of the finder that it is a face; None where no face was looked for.
        stability: how the score holds after re-delivery; None where that was not asked for.
    """

    number: int
    answer: Answer
    reason: str
    score: float | None
    posterior: float | None
    box: tuple[float, float, float, float] | None
    landmarks: tuple[tuple[float, float], ...]
    confidence: float | None
    stability: Stability | None


@dataclass(frozen=True, slots=True)
class Moment:
    """A person in one frame.

    Attributes:
        frame: number of the frame in the clip, from 0.
        seconds: from the clip's beginning.
        box: of the face: left, top, right, bottom in pixels.
        score: of this frame alone; None: not judged.
        reason: why it was not judged; None where it was.
    """

    frame: int
    seconds: float
    box: tuple[float, float, float, float]
    score: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class PersonVerdict:
    """What can be said of one person of a video; as of a face, over the frames.

    Attributes:
        number: from 1, who is seen most first.
        answer: fake, real, unsure or not_applicable.
        reason: one sentence for a person.
        score: calibrated P(fake) of the mean logit over the frames judged; None: not judged.
        posterior: P(fake) at the prevalence; None: not judged.
        judged: frames in which the face was judged.
        not_judged: frames in which it was seen and could not be judged.
        stability: how the score holds after re-delivery; None where that was not asked for.
        moments: where and when the face was seen, in order of time.
    """

    number: int
    answer: Answer
    reason: str
    score: float | None
    posterior: float | None
    judged: int
    not_judged: int
    stability: Stability | None
    moments: tuple[Moment, ...]


@dataclass(frozen=True, slots=True)
class FrameCount:
    """What became of the frames of a video.

    Attributes:
        asked: frames that were to be looked at.
        judged: frames with a face that was judged.
        without_face: frames in which no face was found.
        not_judged: frames with faces of which none could be judged.
        unreadable: frames that could not be read.
        seconds: length of the clip; None: its header does not say.
    """

    asked: int
    judged: int
    without_face: int
    not_judged: int
    unreadable: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What can be said of one picture or clip.

    Attributes:
        path: its name as it was given.
        kind: "photo" or "video"; None: it could not be read.
        answer: fake, real, unsure or not_applicable.
        reason: one sentence for a person.
        score: of the face or person that decided; None: not applicable.
        posterior: the same at the prevalence.
        bands: which scores mean what.
        rule: how the answer follows from those of the faces.
        width: in pixels; None: it could not be read.
        height: in pixels.
        faces: of a photo, all that were found, the largest first.
        people: of a video, those who were followed, who is seen most first.
        frames: of a video.
        model: name of the detector.
        version: version of bonaface that made the detector.
        notes: what was done to the picture, and what limits the answer.
        provenance: what the content credentials of a photo or clip say; no part of the answer.
            None: the extra `provenance` is not installed, nothing could be decoded, or there was
            no file.
    """

    path: str
    kind: Literal["photo", "video"] | None
    answer: Answer
    reason: str
    score: float | None
    posterior: float | None
    bands: Bands
    rule: str
    width: int | None
    height: int | None
    faces: tuple[FaceVerdict, ...]
    people: tuple[PersonVerdict, ...]
    frames: FrameCount | None
    model: str
    version: str
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def readable(self) -> bool:
        """Whether there was a picture or clip to look at."""
        return self.kind is not None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; docs/verdict.schema.json describes it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The word for one score, with the sentence that explains it."""

    answer: Answer
    reason: str
    score: float | None = None
    posterior: float | None = None


def judge_score(
    score: float,
    bands: Bands,
    points: tuple[OperatingPoint, OperatingPoint],
    doubt: str | None = None,
) -> Judgement:
    """Say what a score means.

    Args:
        score: calibrated, in [0, 1].
        bands: at the prevalence asked for.
        points: fake_above and real_below, whose validation error rates the sentence names.
        doubt: why no answer of this detector counts.
    """
    posterior = bands.posterior(score)
    word = bands.answer(score)
    if doubt:
        return Judgement("unsure", doubt, score, posterior)
    fake, real = points
    of_all = f"; at a prevalence of {bands.prevalence:g} the chance that it is fake is "
    tail = "" if bands.prevalence == 0.5 else f"{of_all}{posterior:.2g}"
    if word == "fake":
        seen = _share(fake.bpcer, bands.fake_above > fake.threshold)
        reason = (
            f"score {score:.3f} is at or above {bands.fake_above:.3f}, which {seen} of "
            f"{fake.n_real} real validation faces reached{tail}"
        )
    elif word == "real":
        seen = _share(real.apcer, bands.real_below < real.threshold)
        reason = (
            f"score {score:.3f} is below {bands.real_below:.3f}, where {seen} of "
            f"{real.n_fake} fake validation faces lay{tail}"
        )
    else:
        reason = (
            f"score {score:.3f} lies between {bands.real_below:.3f} and "
            f"{bands.fake_above:.3f}, where both kinds are found{tail}"
        )
    return Judgement(word, reason, score, posterior)


def _share(rate: float, moved: bool) -> str:
    return f"{'at most ' if moved else ''}{100 * rate:.1f} %"


def with_stability(judged: Judgement, stability: Stability | None) -> Judgement:
    """An answer that does not survive every re-delivery becomes unsure."""
    if stability is None or not stability.flips or judged.answer in ("unsure", "not_applicable"):
        return judged
    return Judgement(
        "unsure",
        f"{judged.answer} as it came, but not after {', '.join(stability.flips)} "
        f"(scores {stability.low:.3f} to {stability.high:.3f})",
        judged.score,
        judged.posterior,
    )


def with_frames(judged: Judgement, fakes: int, frames: int) -> Judgement:
    """A person who looks fake in part of the frames is not called real.

    Args:
        judged: by the mean over the frames.
        fakes: frames that look fake by themselves.
        frames: all that were judged.
    """
    if judged.answer != "real" or fakes < max(_FEWEST_FRAMES, _FAKE_SHARE * frames):
        return judged
    return Judgement(
        "unsure",
        f"real by the mean of {frames} frames, but {fakes} of them look fake by themselves",
        judged.score,
        judged.posterior,
    )


class Part(Protocol):
    """A face or a person with an answer."""

    @property
    def number(self) -> int:
        """By which the sentence names it."""

    @property
    def answer(self) -> Answer:
        """Fake, real, unsure or not_applicable."""

    @property
    def reason(self) -> str:
        """One sentence."""

    @property
    def score(self) -> float | None:
        """None: not judged."""

    @property
    def posterior(self) -> float | None:
        """None: not judged."""


def judge_whole(
    parts: Sequence[Part], what: str, others: Mapping[Answer, int] | None = None
) -> Judgement:
    """The answer for a picture or clip from those of its faces or people, by `RULE`.

    Args:
        parts: at least one.
        what: "face" or "person", for the sentence.
        others: answers of further parts that only count; none of them is the only one of its kind.
    """
    more_of = Counter(others or {})
    total = len(parts) + more_of.total()
    judged = [part for part in parts if part.answer != "not_applicable"]
    many = {"face": "faces", "person": "people"}[what]
    if not judged:
        reasons = list(dict.fromkeys(part.reason for part in parts))
        more = f" (and {total - 1} more {many})" if total > 1 else ""
        return Judgement("not_applicable", f"{what} 1: {reasons[0]}{more}")
    words: tuple[Answer, ...] = ("fake", "unsure", "real")
    for word in words:
        same = [part for part in judged if part.answer == word]
        if same:
            break
    decided = max(same, key=lambda part: part.score or 0.0)
    reason = decided.reason
    if total > 1:
        n_same = len(same) + more_of[word]
        n_judged = len(judged) + more_of.total() - more_of["not_applicable"]
        left = total - n_judged
        unjudged = f", {left} could not be judged" if left else ""
        who = f"{n_same} of {n_judged} {many}" if n_judged > 1 else f"the 1 {what} judged"
        verb = "is" if n_same == 1 else "are"
        reason = f"{who} {verb} {decided.answer}{unjudged}; {what} {decided.number}: {reason}"
    return Judgement(decided.answer, reason, decided.score, decided.posterior)


def verdict_schema() -> dict[str, Any]:
    """JSON Schema of what `bonaface detect --json` prints: a list of `Verdict.to_dict`."""
    described = (
        Bands,
        Stability,
        FaceVerdict,
        Moment,
        PersonVerdict,
        FrameCount,
        Provenance,
        Verdict,
    )
    return schema_of(list[Verdict], "bonaface detect --json", described)


def schema_of(what: Any, title: str, described: Sequence[type]) -> dict[str, Any]:
    """JSON Schema of a type, with the docstrings of the dataclasses in it as descriptions."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(what).json_schema(mode="serialization")
    for found in described:
        part = schema if found is what else schema["$defs"][found.__name__]
        lines = (found.__doc__ or "").splitlines()
        part["description"] = lines[0]
        for name, text in _attributes(lines).items():
            part["properties"][name]["description"] = text
    schema["title"] = title
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}


def _attributes(lines: Sequence[str]) -> dict[str, str]:
    """The section Attributes of a docstring: name -> text."""
    found: dict[str, str] = {}
    name = ""
    for line in lines[1 + [line.strip() for line in lines].index("Attributes:") :]:
        text = line.strip()
        if line.startswith(" " * 12):
            found[name] += f" {text}"
        elif text:
            name, _, found_text = text.partition(": ")
            found[name] = found_text
    return found


def chance_of_false_alarm(bpcer: float, faces: int) -> float:
    """Chance that at least one of so many real faces is called fake, were they independent."""
    return float(1 - (1 - bpcer) ** faces)
