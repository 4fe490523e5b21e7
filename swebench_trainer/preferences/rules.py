"""The rules that every pair must obey, and links to the runs behind its answers.

Built-in strategies and third-party ones are held to the same rules: what a pair
claims about its answers must match the candidates and verdicts that it names.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.recipe.models import PairsTable
from swebench_trainer.types import AnswerRef, Candidate, Pair, Verdict, is_unicode


class BrokenRuleError(Exception):
    """A pair breaks a rule.

    Attributes:
        problem: What the strategy did, to follow its name in a sentence.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


@dataclass(frozen=True)
class PairRules:
    """The rules for one strategy.

    Attributes:
        one_sided: Whether a pair may have only one answer.
        max_per_instance: Most pairs from one instance; `None` sets no limit.
        strategy: Name that each pair must carry; `None` accepts any.
    """

    one_sided: bool
    max_per_instance: int | None = None
    strategy: str | None = None

    @classmethod
    def of_table(cls, table: PairsTable) -> PairRules:
        """The rules that a recipe's `[pairs]` sets."""
        return cls(table.one_sided, table.max_per_instance, table.use)

    def checked(
        self, pairs: Iterable[Pair], graded: Sequence[GradedInstance]
    ) -> Iterator[Pair]:
        """Yields each pair after checking it.

        Args:
            pairs: Output of the strategy; may be endless, as the checks bound it.
            graded: The instances that the strategy was given.

        Raises:
            BrokenRuleError: A pair breaks a rule.
        """
        by_id = {item.instance.instance_id: item for item in graded}
        seen: set[Pair] = set()
        counts: Counter[str] = Counter()
        for pair in pairs:
            known = pair.instance_id in by_id
            _require(pair, known, "which is not one of its instances")
            _require(pair, pair not in seen, "twice")
            seen.add(pair)
            counts[pair.instance_id] += 1
            self._require_table(pair, counts[pair.instance_id])
            _require_sound_texts(by_id[pair.instance_id], pair)
            _require_sound_verdicts(by_id[pair.instance_id], pair)
            yield pair

    def _require_table(self, pair: Pair, count: int) -> None:
        most = self.max_per_instance
        within = most is None or count <= most
        _require(pair, within, f"beyond max_per_instance = {most}")
        own = self.strategy in (None, pair.strategy)
        _require(pair, own, f"under the strategy name {pair.strategy!r}")
        sided = self.one_sided or None not in (pair.chosen, pair.rejected)
        _require(pair, sided, "with only one answer, but its table is not one_sided")


def _require(pair: Pair, holds: bool, problem: str) -> None:
    if not holds:
        raise BrokenRuleError(f"made a pair of {pair.instance_id!r} {problem}")


def _require_sound_texts(item: GradedInstance, pair: Pair) -> None:
    _require(pair, pair.prompt == item.prompt, "with another prompt than its instance")
    answers = [text for text in (pair.chosen, pair.rejected) if text is not None]
    _require(pair, bool(answers), "without an answer")
    _require(pair, all(map(is_unicode, answers)), "with text that is not valid Unicode")
    empty = pair.chosen is not None and not pair.chosen.strip()
    _require(pair, not empty, "whose chosen answer is empty")
    _require(pair, len(set(answers)) == len(answers), "whose two answers are the same")


def _require_sound_verdicts(item: GradedInstance, pair: Pair) -> None:
    """Compares a pair with the candidates that it names, and with their verdicts."""
    rewards = [*_chosen_rewards(item, pair), *_rejected_rewards(item, pair)]
    known = [reward for reward in rewards if reward is not None]
    _require(pair, len(known) == len(rewards), "with a masked verdict")
    ordered = known == sorted(known, reverse=True)
    _require(pair, ordered, "that prefers the worse answer")


def _chosen_rewards(item: GradedInstance, pair: Pair) -> Iterator[int | None]:
    """The reward of `chosen`, unless it is gold or ungraded."""
    if pair.chosen is None:
        return
    if pair.chosen_source.is_gold:
        same = pair.chosen == item.gold
        _require(pair, same, "whose chosen answer is not the gold answer")
        return
    source = pair.chosen_source
    for candidate, verdict in _named(item, pair, source, pair.chosen_model):
        same = pair.chosen == candidate.text
        _require(pair, same, f"whose chosen answer is not the text of {source}")
        if verdict:
            trusted = verdict.reward != 1 or verdict.trusted_pass
            _require(pair, trusted, "whose chosen answer is an untrusted pass")
            labeled = verdict.reward in (1, None) or bool(pair.chosen_tier)
            _require(pair, labeled, "whose chosen answer fails, without a chosen_tier")
            yield verdict.reward


def _rejected_rewards(item: GradedInstance, pair: Pair) -> Iterator[int | None]:
    """The reward of `rejected`, unless it is ungraded."""
    if pair.rejected is None:
        return
    source = pair.rejected_source
    for candidate, verdict in _named(item, pair, source, pair.rejected_model):
        same = pair.restyled or pair.rejected == candidate.text
        _require(pair, same, f"whose rejected answer is not the text of {source}")
        if verdict:
            _require(pair, not verdict.flaky, "whose rejected answer is flaky")
            _require(pair, verdict.reward != 1, "whose rejected answer passes")
            yield verdict.reward


def _named(
    item: GradedInstance, pair: Pair, source: AnswerRef, model: str
) -> list[tuple[Candidate, Verdict | None]]:
    """The candidate that a pair names, with its verdict; empty where two would match."""
    ungraded = [(candidate, None) for candidate in item.ungraded]
    named = [
        (candidate, verdict)
        for candidate, verdict in [*item.graded, *ungraded]
        if source.sample == candidate.sample and model in ("", candidate.model)
    ]
    _require(pair, bool(named), f"from '{source}', which is not one of its candidates")
    return named if len(named) == 1 else []


def traced(
    pairs: Iterable[Pair],
    graded: Sequence[GradedInstance],
    logs: Mapping[tuple[str, str, int], str],
    gold_logs: Mapping[str, str],
) -> list[Pair]:
    """Adds to each pair the models of its answers and the logs of their tests.

    A strategy may leave a model empty if only one model has that sample number.

    Args:
        pairs: The pairs.
        graded: The instances that they were made from.
        logs: Log directory by model, instance id and sample, relative to the run
            directory.
        gold_logs: Log directory of gold's run by instance id.
    """
    writers: dict[tuple[str, int], list[str]] = defaultdict(list)
    for item in graded:
        for candidate in item.candidates:
            writers[candidate.instance_id, candidate.sample].append(candidate.model)

    def origin(name: str, source: AnswerRef, model: str) -> tuple[str, str]:
        if source.is_gold:
            return "", gold_logs.get(name, "")
        if source.sample is None:
            return model, ""
        known = writers[name, source.sample]
        model = model or (known[0] if len(known) == 1 else "")
        return model, logs.get((model, name, source.sample), "")

    found = []
    for pair in pairs:
        name = pair.instance_id
        model, log = origin(name, pair.chosen_source, pair.chosen_model)
        pair = replace(pair, chosen_model=model, chosen_log=log)
        model, log = origin(name, pair.rejected_source, pair.rejected_model)
        found.append(replace(pair, rejected_model=model, rejected_log=log))
    return found
