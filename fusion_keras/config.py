"""Every setting of a training run, each once, with what it does.

An experiment file in `configs/` starts from `get_config()` and changes what differs.
Settings under `config.train` and `config.parent` that are None are filled in by the
recipe (`fusion_keras/training/recipes.py`), which knows the variant; a value given
here, in an experiment file or on the command line wins over the recipe.
"""

import copy

from ml_collections import ConfigDict, FrozenConfigDict
from ml_collections.config_dict import placeholder

from fusion_keras.renamed import DataSection


def get_config() -> ConfigDict:
    """The defaults: the built-in demo, which needs no download."""
    config = ConfigDict()
    # Name of the experiment; runs go to <workdir>/<name>/<variant>-s<seed>.
    config.name = "demo"
    # Which fusion: text, image, audio, tabular, late, inter, early, late_score, hybrid or input; of
    # digits clstm_initial, clstm_second or clstm_fc.
    config.variant = "inter"
    # How to train: "best" (ours), "paper" (Willis and Bakos 2025, section 3.5), "distil" (of a
    # teacher's student), "demo", or "digits" (Barnum et al. 2020, appendix A.2).
    config.recipe = "demo"
    # Seeds initial weights, data order, dropout and augmentation.
    config.seed = 0
    # float32, or bfloat16 for mixed precision.
    config.dtype = "float32"
    # Also learn the real-valued score, where the data has one.
    config.regression = False
    # Finished runs of one modality that this one starts from; () trains what it needs.
    config.parents = ()
    config.data = _data()
    config.text = _text()
    config.image = _image()
    config.audio = _audio()
    config.tabular = _tabular()
    config.fusion = _fusion()
    config.clstm = _clstm()
    config.train = _train()
    config.parent = _parent()
    config.teacher = _teacher()
    config.augment = _augment()
    return config.lock()


def copied(config: ConfigDict) -> ConfigDict:
    """A copy that may be changed, of a config or of a frozen one."""
    frozen = isinstance(config, FrozenConfigDict)
    return copy.deepcopy(config.as_configdict() if frozen else config)


def _data() -> ConfigDict:
    data = DataSection()
    # Where examples come from: demo, manifest (any table of rows), mosi or digits.
    data.source = "demo"
    # What the data set is called in every report; "" takes the source's own name.
    data.name = ""
    # The manifest, or MOSI's label file; digits: the folder with mnist and fsdd.
    data.path = ""
    # Greatest share of rows that may be unusable before the run ends.
    data.max_skipped = 0.01
    # Rows that lack a modality, their cell being empty or a missing value: skip leaves them out as
    # unusable; keep has a model with fusion.stand_ins learn from them, and one of a modality alone
    # leave out what lacks that; auto keeps them with fusion.stand_ins, else skips.
    data.incomplete = "auto"
    # Shares of train, valid and test where the file has no split.
    data.split_fractions = (0.7, 0.1, 0.2)
    # Seeds that split; digits: also which pairs are drawn, and their noise.
    data.split_seed = 0
    # What a drawn split keeps together: rows of one image, of one text (case and white space
    # aside), or both, also through a third row; "" divides them, and the notes count it.
    data.group_by = ""
    # Which part of the training rows this model learns on: all, first or second. Late
    # fusion sets it for its parents and its head.
    data.part = "all"
    # Share of the training rows in the first part.
    data.part_share = 0.5
    # Tokens of a sentence, with [CLS] and [SEP]; longer ones are cut.
    data.max_length = 26
    # Labels of a row: single, exactly one, or multi, any number of them, each decided for itself.
    # The cell is then a JSON list, or names with a separator between them; empty for no label.
    data.label_kind = "single"
    # multi: that separator; "" for lists alone.
    data.label_separator = ";"
    # Where decoded images and tokens are kept; "" is the user's cache folder.
    data.cache_dir = ""
    for add in (_manifest, _mosi, _demo, _digits):
        add(data)
    return data


# What one source alone reads.


def _manifest(data: ConfigDict) -> None:
    data.manifest = ConfigDict()
    # Its column of sentences; or several with commas between, e.g. title,body: their texts are
    # joined into one. A name that holds a comma stands in double quotes. "" for none.
    data.manifest.text_column = "text"
    # What stands between the texts of several columns.
    data.manifest.text_join = " | "
    # Put the name of its column before each text, as in "title: Dune".
    data.manifest.text_names = False
    # Its column of image files.
    data.manifest.image_column = "image"
    # Its column of files with a sound track (wav, mp3, mp4, ...); "" for none.
    data.manifest.audio_column = ""
    # Its column of classes.
    data.manifest.label_column = "label"
    # Its column of train, valid or test, where it has one.
    data.manifest.split_column = "split"
    # Its column of names of rows, where it has one.
    data.manifest.id_column = "id"
    # Its column of what must stay in one split (a speaker), where it has one.
    data.manifest.group_column = "group"
    # Its column of real-valued targets, where it has one.
    data.manifest.score_column = "score"
    # The classes in order; () takes them from the file.
    data.manifest.classes = ()
    # Make one class of those that differ only in case, in characters that are not seen, or in how a
    # number, a dash or an apostrophe is written.
    data.manifest.join_classes = False
    # Cells that are missing values, in any case, as empty ones are. As labels none, null and n/a
    # are classes, with a note.
    data.manifest.missing = ("nan", "<na>", "#n/a", "n/a", "none", "null")
    # Encoding of the file, by Python's name (gb18030, cp932, cp1252, ...); "" is UTF-8.
    data.manifest.encoding = ""


def _mosi(data: ConfigDict) -> None:
    data.mosi = ConfigDict()
    # Folder with <video_id>/<clip_id>.mp4, for images and sound.
    data.mosi.raw_dir = ""
    # Folder of ready frames, instead of raw_dir.
    data.mosi.frames_dir = ""


def _demo(data: ConfigDict) -> None:
    data.demo = ConfigDict()
    # Number of examples.
    data.demo.size = 4000
    # Share of contradicting cues.
    data.demo.noise = 0.05
    # Its seed.
    data.demo.seed = 0


def _digits(data: ConfigDict) -> None:
    data.digits = ConfigDict()
    # Recordings divided one by one (example), or no voice in two splits (speaker).
    data.digits.split = "example"
    # Signal-to-noise ratio of images, as powers; inf adds none, 0 leaves none.
    data.digits.image_snr = float("inf")
    # That of sound.
    data.digits.audio_snr = float("inf")
    # Pairs to train on.
    data.digits.train_pairs = 87516
    # Pairs to validate on.
    data.digits.valid_pairs = 2000
    # Pairs to test on.
    data.digits.test_pairs = 2000


def _text() -> ConfigDict:
    text = ConfigDict()
    # A named preset, a Hugging Face id (hf://...) or directory, or a keras-hub preset.
    text.preset = "minilm"
    # Dropout inside the encoder, in training. On a CPU its random numbers cost a third of
    # a step, so the demo goes without.
    text.dropout = 0.0
    # Greatest share of a split's tokens that may be unknown to the preset's vocabulary. Of 3000
    # tweets with emoji 0.4 % are; of a script that the vocabulary lacks half and more.
    text.max_unknown = 0.2
    return text


def _image() -> ConfigDict:
    image = ConfigDict()
    # A named preset, a Hugging Face id (hf://...) or directory, or a keras-hub preset.
    image.preset = "random:small_mobilenet"
    # Side in pixels; 0 takes the checkpoint's own.
    image.size = 64
    # squash, crop, squash_crop or pad; "" takes the checkpoint's own.
    image.resize = ""
    return image


def _audio() -> ConfigDict:
    audio = ConfigDict()
    # A named preset, e.g. audio_cnn or whisper_tiny, a directory, or hf://owner/name of a Whisper.
    audio.preset = "audio_cnn"
    # Length of a clip: longer ones keep their middle, shorter ones are followed by silence.
    audio.seconds = 4.0
    return audio


def _tabular() -> ConfigDict:
    tabular = ConfigDict()
    # mlp_LAYERSxWIDTH: the perceptron that encodes them.
    tabular.preset = "mlp_3x64"
    # The manifest's columns of numbers, with commas between; empty cells are missing values.
    tabular.numbers = ""
    # Its columns of categories, likewise; at most 1000 different values in each.
    tabular.categories = ""
    return tabular


def _fusion() -> ConfigDict:
    fusion = ConfigDict()
    # What a fused variant joins: two or more of text, image, audio and tabular, with + between.
    fusion.modalities = "text+image"
    # Junctions in short form, e.g. "4+4:linear,8+8:attention" or, with audio third,
    # "6+6+4:attention"; "" takes the variant's.
    fusion.junctions = ""
    # Joint width, a multiple of the heads; 0 takes a third of the text's (256 of BERT's 768, 128
    # of MiniLM's 384), 256 where no text is joined.
    fusion.width = 0
    # Heads of attention.
    fusion.heads = 4
    # Attention blocks; 0 takes the variant's (early 4, inter 1).
    fusion.blocks = 0
    # What attention sees: sequence (text tokens, a grid of image tokens, as many of sound along
    # its time) or pooled.
    fusion.tokens = "sequence"
    # Longest side of that grid; 0 takes the variant's (input 7, others 4).
    fusion.grid = 0
    # How a text layer becomes a vector: mean or cls.
    fusion.pool = "mean"
    # Hidden units of the head; 0 for a linear one.
    fusion.hidden = 0
    # Dropout in front of the head's last layer.
    fusion.dropout = 0.1
    # late_score: weights of the modalities in their order; () learns them.
    fusion.weights = ()
    # Learn a stand-in for each modality that augment.drop_text, drop_image, ... withholds; the
    # model then takes which ones are there, and its export can leave one out.
    fusion.stand_ins = False
    return fusion


def _clstm() -> ConfigDict:
    clstm = ConfigDict()
    # Side of the image in pixels, 28 or a divisor of it.
    clstm.image = 28
    # Columns of the spectrogram, 25 ms apart; 91 hold the longest spoken digit, 2.3 s.
    clstm.steps = 91
    # Units of every convolution and LSTM.
    clstm.units = 64
    # Side of every convolution's kernel.
    clstm.kernel = 3
    # Units of the dense layer.
    clstm.hidden = 128
    return clstm


def _train() -> ConfigDict:
    train = ConfigDict()
    # Examples in a step.
    train.batch_size = 32
    # Parts in which each batch is learned from, one after the other, for one update: for batches
    # that do not fit into memory. The rates stay. BatchNorm takes its statistics of each part and
    # dropout is drawn for each; without them the run is that of whole batches, but for rounding.
    train.accumulate = 1
    # Passes over the training data.
    train.epochs = placeholder(int)
    # sgd, adam or adamw.
    train.optimizer = placeholder(str)
    # Rate of everything that starts from nothing: junctions and head.
    train.learning_rate = placeholder(float)
    # Rate of the text backbone; 0 leaves it as it is.
    train.text_rate = placeholder(float)
    # Rate of the image backbone; 0 leaves it as it is.
    train.image_rate = placeholder(float)
    # Rate of the audio backbone; 0 leaves it as it is.
    train.audio_rate = placeholder(float)
    # Rate of the tabular backbone; 0 leaves it as it is.
    train.tabular_rate = placeholder(float)
    # constant, or linear / cosine decay to zero.
    train.schedule = placeholder(str)
    # Warm-up as a share of all steps.
    train.warmup = placeholder(float)
    # sgd: momentum.
    train.momentum = placeholder(float)
    # adam, adamw: decay of the mean of gradients.
    train.beta_1 = placeholder(float)
    # adam, adamw: decay of the mean of squared gradients.
    train.beta_2 = placeholder(float)
    # adam, adamw: added to the denominator.
    train.epsilon = placeholder(float)
    # sgd, adam: of all weights, in the gradient; adamw: of matrices only, decoupled.
    train.weight_decay = placeholder(float)
    # Largest norm of the whole gradient; 0 does not clip.
    train.clip_norm = placeholder(float)
    # Share of each label that is spread over all classes; of several labels a row, over yes and no.
    train.label_smoothing = placeholder(float)
    # Epochs without a better validation before training stops; 0 never stops early.
    train.patience = placeholder(int)
    # What "better on validation" means: accuracy (ties by nll; of several labels a row the share of
    # rows whose every label is right), nll, or last (no choice).
    train.select = placeholder(str)
    # Weight of the score's loss, with regression.
    train.score_loss = 0.5
    return train


def _parent() -> ConfigDict:
    parent = ConfigDict()
    # Modalities whose backbone starts from a run of that modality alone, trained on the way
    # unless --parents names it. Late fusion has both, always, and freezes them.
    parent.warm_start = placeholder(tuple)
    # late: share of the training data that the parents learn on; the head learns on the
    # rest. 1 gives all of it to both.
    parent.share = placeholder(float)
    # Epochs of the parents trained on the way; None: their own recipe's.
    parent.epochs = placeholder(int)
    return parent


def _teacher() -> ConfigDict:
    teacher = ConfigDict()
    # Finished runs whose answers this run learns from, of any variant; several are averaged as
    # probabilities. () for none.
    teacher.runs = ()
    # Share of the loss that follows the teacher instead of the label; a row without a label
    # follows the teacher alone.
    teacher.share = 0.5
    # Softens the answers of both before they are compared; 1 leaves them as they are.
    teacher.temperature = 1.0
    # Rows added for each training row: its sentence with the image (sound, ...) of another one.
    # Only the teacher knows what they are.
    teacher.pairs = 2
    # Share of the words of those rows' sentences that are changed, half of them left out, half
    # replaced by their neighbours in the text preset's embedding, where they have any. With it a
    # text model has such rows, too. 0 for none.
    teacher.edits = 0.0
    # A table of rows without labels, its columns called as the manifest's.
    # Where a row has no image (or no sentence), it gets one of a training row.
    teacher.unlabelled = ""
    # Weight of the loss of a further head on each modality's own backbone, which learns what the
    # logits learn and is gone after training; of joint models that train their backbones. 0 for
    # none.
    teacher.heads = 0.0
    # Weight of the squared error between the deepest taps of the run's backbones, projected, and
    # those of the first teacher, averaged over the modalities that both have. 0 for none.
    teacher.taps = 0.0
    return teacher


def _augment() -> ConfigDict:
    augment = ConfigDict()
    # Training only; None: from the recipe. False switches all of it off.
    augment.enabled = placeholder(bool)
    # Mirror half of the images.
    augment.flip = True
    # Largest shift, as a share of the side.
    augment.shift = placeholder(float)
    # Range of the scale.
    augment.scale = placeholder(tuple)
    # Largest rotation, in degrees.
    augment.rotate = placeholder(float)
    # Relative range of the brightness.
    augment.brightness = placeholder(float)
    # Relative range of the contrast.
    augment.contrast = placeholder(float)
    # Relative range of the saturation.
    augment.saturation = placeholder(float)
    # Chance of blanking a rectangle.
    augment.erase = placeholder(float)
    # image alone: alpha of mixup, which mixes pairs of images and their labels; 0 for none. With
    # sound nothing is mixed.
    augment.mixup = placeholder(float)
    # Chance of withholding the sentence of an example that has more: the rest must then be of
    # use alone. No example loses two.
    augment.drop_text = placeholder(float)
    # Chance of withholding its image, likewise.
    augment.drop_image = placeholder(float)
    # Chance of withholding its sound, likewise.
    augment.drop_audio = 0.0
    # Chance of withholding its numbers and categories, likewise.
    augment.drop_tabular = 0.0
    return augment
