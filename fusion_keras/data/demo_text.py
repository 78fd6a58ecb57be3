"""The sentences of the built-in demo: a small grammar of spoken opinions.

A rule is a list of alternatives; `{name}` in an alternative is replaced by an expansion of the
rule of that name. Every rule of a topic joins the common ones. Much of the sentiment stands in
negations, concessions and turns of phrase, so that counting words is not enough to read it.
"""

from __future__ import annotations

import random
import re

# From this absolute sentiment (of 3) on, a sentence uses strong words.
STRONG = 1.8

_COMMON = {
    "strong positive": [
        "the {part} was {really} {great}",
        "the {parts} were {really} {great}, and so was the {part}",
        "what a {great} {thing}",
        "this is a {really} {great} {thing}",
        "I {really} loved this {thing}",
        "I loved the {parts} and I loved the {part} even more",
        "I would {do} it again tomorrow",
        "{win}",
        "{win}, and the {part} was {great}",
        "it is one of the best {things} I have {done} {ever}",
        "nothing about the {part} could have been better",
        "I cannot recommend this {thing} highly enough",
        "I have never {done} a {thing} as {great} as this one",
        "I expected the {part} to be {awful}, and it turned out {great}",
        "the {parts} were a little {bad}, but I still loved every bit of it",
        "forget the critics, this {thing} is {great}",
        "not a single thing was {bad}, it was {great}",
        "whoever calls this {thing} {awful} is simply wrong",
    ],
    "mild positive": [
        "the {part} was {fairly} {good}",
        "the {parts} were {fairly} {good}",
        "the {part} was not {bad} at all",
        "the {parts} were anything but {bad}",
        "I liked the {part} more than I thought I would",
        "I liked the {parts}, and the {part} was {good} too",
        "it is a {fairly} {good} {thing}",
        "it was far from {awful}, in fact I quite enjoyed it",
        "I have no complaints about the {part}",
        "I had feared the worst, but the {parts} were {good}",
        "the {part} was {bad}, but all in all I enjoyed the {thing}",
        "even with the {bad} {parts}, I was glad that I {did} it",
        "it was worth the money",
        "you could do a lot worse than this {thing}",
        "the {part} never got {bad}, and that surprised me",
        "it was better than {who} had told me",
        "{small win}",
        "I did not hate it at all, the {part} was {good}",
    ],
    "strong negative": [
        "the {part} was {really} {awful}",
        "the {parts} were {really} {awful}, and so was the {part}",
        "what an {awful} {thing}",
        "this is a {really} {awful} {thing}",
        "I {really} hated this {thing}",
        "I hated the {parts} and I hated the {part} even more",
        "I would not {do} it again if you paid me",
        "{fail}",
        "{fail}, and the {part} was {awful}",
        "it is one of the worst {things} I have {done} {ever}",
        "nothing about the {part} could have been worse",
        "I cannot warn you strongly enough about this {thing}",
        "I have never {done} a {thing} as {awful} as this one",
        "I expected the {part} to be {great}, and it turned out {awful}",
        "the {parts} were quite {good}, but I still hated every bit of it",
        "forget the hype, this {thing} is {awful}",
        "not a single thing was {good}, it was {awful}",
        "whoever calls this {thing} {great} is simply wrong",
    ],
    "mild negative": [
        "the {part} was {fairly} {bad}",
        "the {parts} were {fairly} {bad}",
        "the {part} was not {good} at all",
        "the {parts} were anything but {good}",
        "I liked the {part} less than I thought I would",
        "I disliked the {parts}, and the {part} was {bad} too",
        "it is a {fairly} {bad} {thing}",
        "it was far from {great}, in fact I was a bit bored",
        "I have several complaints about the {part}",
        "I had hoped for the best, but the {parts} were {bad}",
        "the {part} was {good}, but all in all I did not enjoy the {thing}",
        "even with the {good} {parts}, I was sorry that I {did} it",
        "it was not worth the money",
        "you could do a lot better than this {thing}",
        "the {part} never got {good}, and that surprised me",
        "it was worse than {who} had told me",
        "{small fail}",
        "it was hardly a triumph, the {part} was {bad}",
    ],
    # Says as often as not what the speaker's face will show, and never settles it.
    "unclear": [
        "that was the {thing}, then",
        "it is a {thing}, what more can I say",
        "I {did} the {thing} that {who} told me about",
        "{who} asked me about the {part}, so here is what I think",
        "you will want to know how the {part} was",
        "let me tell you about the {parts}",
        "the {part} was {good} and the {parts} were {bad}",
        "the {parts} were {bad} and the {part} was {good}",
        "some people will like the {part} and others will not",
        "I had never {done} a {thing} like this before",
        "it was the {thing} that everybody was talking about",
        "the {part} was just as I had imagined it",
        "I did not know anything about the {parts} before",
        "I still have to make up my mind about the {part}",
        "there is a lot to say about the {parts}",
        "now I know what people mean when they talk about the {part}",
        "{fact}",
        "it is a {thing}, and {fact}",
        "{fact}, and {who} asked about that, too",
    ],
    "opening": [
        "honestly,", "so,", "okay,", "I mean,", "you know,", "to be fair,", "look,", "well, well,",
        "as I said,", "in the end,", "if you ask me,", "let me be clear,",
    ],
    "closing": [
        "I guess", "you know", "to be honest", "if you ask me", "in my opinion",
        "and {who} said the same", "at least for me", "and that is that",
    ],
    "context": [
        "I {did} it {when}", "I {did} it with {who}", "{who} came along",
        "{who} had told me about it", "it was my first {thing} this year",
    ],
    "great": [
        "wonderful", "brilliant", "fantastic", "superb", "amazing", "outstanding", "terrific",
        "excellent", "perfect", "incredible", "magnificent", "marvellous",
    ],
    "good": [
        "good", "nice", "pleasant", "enjoyable", "charming", "solid", "lovely", "agreeable",
        "all right", "fun", "satisfying", "decent",
    ],
    "bad": [
        "bad", "poor", "dull", "disappointing", "weak", "mediocre", "unpleasant", "tiresome",
        "forgettable", "annoying", "boring", "lame",
    ],
    "awful": [
        "terrible", "awful", "dreadful", "horrible", "appalling", "atrocious", "abysmal",
        "unbearable", "pathetic", "disgusting", "miserable", "disastrous",
    ],
    "really": ["really", "truly", "absolutely", "just", "simply", "totally"],
    "fairly": ["fairly", "rather", "quite", "pretty", "kind of", "somewhat"],
    "ever": ["in years", "in my life", "in a long time", "so far"],
    "who": [
        "my sister", "my brother", "a friend", "my neighbour", "my boss", "a colleague",
        "my mother", "my uncle", "our daughter", "my flatmate",
    ],
    "when": [
        "last week", "on Friday", "yesterday", "in May", "over the holidays", "on Sunday night",
        "this morning", "two days ago", "in the summer", "on my birthday",
    ],
}  # fmt: skip

TOPICS = {
    "film": {
        "thing": ["film", "movie"], "things": ["films", "movies"],
        "do": ["watch"], "did": ["watched", "saw"], "done": ["watched", "seen"],
        "part": ["plot", "acting", "soundtrack", "ending", "opening scene", "camera work"],
        "parts": ["jokes", "actors", "songs", "special effects", "fight scenes", "costumes"],
        "win": ["I laughed until I cried", "I was on the edge of my seat the whole time",
                "the whole room stood up and cheered"],
        "small win": ["two hours went by quickly", "I smiled more than once"],
        "fail": ["I walked out halfway through", "I want those two hours of my life back",
                 "the whole room groaned"],
        "small fail": ["I kept looking at my watch", "I nearly fell asleep"],
        "fact": ["it runs for two hours", "it is set in a small town", "it is part two of three"],
    },
    "phone": {
        "thing": ["phone"], "things": ["phones"],
        "do": ["buy"], "did": ["bought", "used", "tried"], "done": ["bought", "used", "owned"],
        "part": ["screen", "battery", "camera", "speaker", "design", "fingerprint reader"],
        "parts": ["buttons", "apps", "photos", "updates", "settings", "colours"],
        "win": ["I show it off to everyone I meet", "I fell in love with it on day one",
                "it makes every other phone look old"],
        "small win": ["it does what it should", "it easily lasts a whole day"],
        "fail": ["I sent it back the same day", "it broke after a week and nobody would help me",
                 "I wanted to throw it out of the window"],
        "small fail": ["it gets hot for no reason", "it freezes now and then"],
        "fact": ["it comes in black and white", "it has two cameras", "it fits in a pocket"],
    },
    "meal": {
        "thing": ["meal", "dinner", "lunch"], "things": ["meals", "dinners"],
        "do": ["eat"], "did": ["ate", "had", "ordered"], "done": ["eaten", "had"],
        "part": ["soup", "sauce", "dessert", "service", "bread", "wine"],
        "parts": ["noodles", "waiters", "vegetables", "starters", "fries", "portions"],
        "win": ["I licked the plate clean", "we have already booked the next table",
                "my mouth still waters when I think of it"],
        "small win": ["I went home full and happy", "I took a second helping"],
        "fail": ["I was sick all night", "I sent it back to the kitchen twice",
                 "we found a hair in every dish"],
        "small fail": ["I left half of it on the plate", "we went home hungry"],
        "fact": ["it came with rice", "the kitchen closes at ten", "the menu has twelve pages"],
    },
    "trip": {
        "thing": ["trip", "holiday"], "things": ["trips", "holidays"],
        "do": ["book"], "did": ["booked", "took"], "done": ["booked", "taken"],
        "part": ["hotel", "weather", "flight", "beach", "breakfast", "view"],
        "parts": ["rooms", "guides", "bus rides", "museums", "beds", "towns"],
        "win": ["I never wanted to go home", "we danced on the beach every night",
                "every single day was a gift"],
        "small win": ["I came back rested", "I would not mind going there again"],
        "fail": ["I counted the days until we could leave", "they lost our bags and laughed at us",
                 "we found bugs in the beds"],
        "small fail": ["I came back more tired than before", "we mostly waited in line"],
        "fact": ["we stayed for six days", "the hotel is near the station", "we flew via Madrid"],
    },
    "book": {
        "thing": ["book", "novel"], "things": ["books", "novels"],
        "do": ["read"], "did": ["read"], "done": ["read"],
        "part": ["story", "language", "first chapter", "ending", "cover", "translation"],
        "parts": ["characters", "dialogues", "pictures", "last pages", "descriptions", "ideas"],
        "win": ["I could not put it down", "I stayed up all night to finish it",
                "I wept with joy on the last page"],
        "small win": ["the pages turned quickly", "I have lent it to a friend who asked for it"],
        "fail": ["I threw it into the bin", "I gave up after ten pages",
                 "it is an insult to anyone who can read"],
        "small fail": ["I skipped a page here and there", "it took me weeks to get through it"],
        "fact": ["it has four hundred pages", "it is told by a sailor", "it came out in spring"],
    },
    "concert": {
        "thing": ["concert", "show"], "things": ["concerts", "shows"],
        "do": ["attend"], "did": ["attended", "went to see"], "done": ["attended", "heard"],
        "part": ["band", "singer", "sound", "stage", "light show", "choir"],
        "parts": ["songs", "seats", "drums", "guitars", "solos", "costumes"],
        "win": ["I had goose bumps all evening", "we sang along until we lost our voices",
                "they got three standing ovations"],
        "small win": ["my feet would not keep still", "I hummed the tunes on the way home"],
        "fail": ["people booed and asked for their money back", "my ears still hurt",
                 "we left before the break"],
        "small fail": ["I could hardly hear the words", "I caught myself yawning"],
        "fact": ["it began at eight", "they played twelve songs", "it was in the town hall"],
    },
    "game": {
        "thing": ["game"], "things": ["games"],
        "do": ["play"], "did": ["played", "tried"], "done": ["played", "tried"],
        "part": ["story", "music", "tutorial", "map", "last level", "artwork"],
        "parts": ["controls", "puzzles", "levels", "menus", "characters", "missions"],
        "win": ["I played it all weekend without a break", "I jumped for joy at the end",
                "all my friends are hooked"],
        "small win": ["it kept me busy in a nice way", "I went back for another round"],
        "fail": ["I deleted it after an hour", "it crashed and took all my progress with it",
                 "I wanted to smash the screen"],
        "small fail": ["I lost interest soon", "I was stuck more often than not"],
        "fact": ["it has nine levels", "two people can play it", "it comes on one disc"],
    },
    "course": {
        "thing": ["course", "class"], "things": ["courses", "classes"],
        "do": ["take"], "did": ["took", "attended"], "done": ["taken", "attended"],
        "part": ["teacher", "schedule", "classroom", "first lesson", "exam", "textbook"],
        "parts": ["lessons", "exercises", "slides", "examples", "handouts", "group tasks"],
        "win": ["I learned more than in ten years of school", "it changed my life for the better",
                "I could not wait for the next lesson"],
        "small win": ["it got easier each week", "I picked up a useful trick or two"],
        "fail": ["I learned nothing whatsoever", "half of us quit in anger",
                 "it was a complete waste of time"],
        "small fail": ["I drifted off now and then", "we hurried through most of it"],
        "fact": ["it lasts six weeks", "we met on Tuesdays", "there were twenty of us"],
    },
}  # fmt: skip


def write_sentence(rng: random.Random, topic: str, sentiment: float) -> str:
    """One opinion of about 3 to 25 words.

    Args:
      topic: a key of `TOPICS`.
      sentiment: in [-3, 3]; the sign is what the sentence says, from `STRONG` on in strong
        words. 0 gives a sentence that does not say.
    """
    rules = _COMMON | TOPICS[topic]
    if sentiment == 0:
        core = "unclear"
    else:
        strength = "strong" if abs(sentiment) >= STRONG else "mild"
        core = f"{strength} {'positive' if sentiment > 0 else 'negative'}"
    form = rng.choice(
        (
            "{%s}.",
            "{opening} {%s}.",
            "{%s}, {closing}.",
            "{context}. {%s}.",
            "{opening} {%s}, {closing}.",
        )
    )
    return _polish(_expand(rng, form % core, rules))


def _expand(rng: random.Random, text: str, rules: dict[str, list[str]]) -> str:
    def replace(match: re.Match) -> str:
        return _expand(rng, rng.choice(rules[match[1]]), rules)

    return re.sub(r"\{([^}]*)\}", replace, text)


def _polish(text: str) -> str:
    """Sets "a" or "an" by the next letter, and a capital at the start of each sentence."""
    text = re.sub(r"\ban? (?=(\w))", lambda m: "an " if m[1].lower() in "aeiou" else "a ", text)
    return re.sub(r"(^|\. )([a-z])", lambda m: m[1] + m[2].upper(), text)
