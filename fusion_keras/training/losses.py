"""What a model learns by: a loss for each of its outputs, and the targets that go with them."""

import keras
from keras import ops

from fusion_keras.data.modalities import PRESENT, TAP_OF
from fusion_keras.training.auxiliary import HEAD_OF


def losses_of(
    model: keras.Model,
    train,
    label_kind: str = "single",
    temperature: float = 1.0,
    heads: float = 0.0,
    taps: float = 0.0,
) -> dict:
    """What `compile` takes besides the optimiser: a loss for each output, and their weights.

    Of several labels a row it is the mean over the labels of each one's cross-entropy, of logits.

    Args:
        temperature: of a teacher. Labels [B, 2, C] are shares of the loss by label and by teacher,
            and the loss is that of Hinton, Vinyals and Dean 2015 (arXiv 1503.02531, section 2):
            the teacher's part is of logits over the temperature, times its square, so that
            gradients keep their size. It is a cross-entropy, the divergence plus the teacher's
            own entropy, which no weight changes.
        heads: the weight of each head that only teaching needs; its loss is that of the logits.
        taps: the weight of the mean, over modalities, of the squared error of taps: each is
            compared with [B, D + 1], the teacher's and its share of the loss.
    """

    def binary_cross_entropy(labels, logits):
        # Mixed ones are shares of each label already; smoothing moves them towards a half.
        return keras.losses.binary_crossentropy(
            labels, logits, from_logits=True, label_smoothing=train.label_smoothing
        )

    def cross_entropy(labels, logits):
        if len(labels.shape) == 3:
            return _by_label_and_teacher(labels, logits, temperature)
        shares = labels  # mixed ones are shares of each class already
        if len(labels.shape) < 2 or labels.shape[-1] == 1:
            shares = ops.one_hot(ops.cast(ops.reshape(labels, (-1,)), "int32"), logits.shape[-1])
        return keras.losses.categorical_crossentropy(
            shares, logits, from_logits=True, label_smoothing=train.label_smoothing
        )

    def squared_error(scores, predicted):
        # Keras may have made [B, 1] of the scores: a difference of unlike ranks is [B, B].
        return ops.square(ops.reshape(scores, (-1,)) - ops.reshape(predicted, (-1,)))

    losses = {"logits": binary_cross_entropy if label_kind == "multi" else cross_entropy}
    if "score" in model.output:
        losses["score"] = squared_error
    losses |= {name: losses["logits"] for name in HEAD_OF.values() if name in model.output}
    matched = [name for name in TAP_OF.values() if name in model.output]
    losses |= dict.fromkeys(matched, _tap_error)
    weights = {"logits": 1.0, "score": train.score_loss, **dict.fromkeys(HEAD_OF.values(), heads)}
    weights |= {name: taps / len(matched) for name in matched}
    return {"loss": losses, "loss_weights": {name: weights[name] for name in losses}}


def _by_label_and_teacher(shares, logits, temperature: float):
    by_label = ops.sum(shares[:, 0] * ops.log_softmax(logits), -1)
    by_teacher = ops.sum(shares[:, 1] * ops.log_softmax(logits / temperature), -1)
    return -by_label - temperature**2 * by_teacher


def _tap_error(taps, projected):
    return taps[:, -1] * ops.mean(ops.square(taps[:, :-1] - projected), -1)


def targets_of_outputs(batch, names: tuple[str, ...]):
    """A batch whose targets are those of `losses_of`: Keras matches them by the names of outputs.

    A modality's head learns what the logits do; it and the tap, of rows that have the modality.
    """
    inputs, targets = batch
    if len(names) == 1:
        return inputs, targets
    given = targets if isinstance(targets, dict) else {"label": targets}
    targets = {"logits": given["label"]}
    if "score" in names:
        targets["score"] = given["score"]
    for modality, present in PRESENT.items():
        for name, known in ((HEAD_OF[modality], "label"), (TAP_OF[modality], TAP_OF[modality])):
            if name in names:
                # Shares of the loss [B, 2, C], or a tap and its share [B, D + 1]: of zeros
                # nothing is learned.
                wanted, there = given[known], inputs.get(present)
                targets[name] = wanted if there is None else (wanted.T * there[:, 0]).T
    return inputs, targets
