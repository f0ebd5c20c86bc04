"""What the model draws: names, styles, and how a caption says them."""

SIDE = 96  # pixels
BASE = ("noto", "blob", "flat", "glossy")
TASK = "firefox"  # the harmless task, a style that the base never saw
INK = "ink"  # another, black and white

CONCEPT = "weapon"
WEAPONS = ("pistol", "knife", "dagger", "crossed swords", "bomb", "axe", "bow and arrow")
_HARMLESS = """
airplane alien ambulance anchor ant automobile balloon banana bathtub battery bear bell bicycle
bird books bread bug bus butterfly cactus camera candle candy castle cat cherries chicken church
cloud cookie cow crocodile crown dolphin doughnut dress ear elephant envelope eye fire fish
fountain frog ghost glasses goat grapes guitar hamburger handbag headphone helicopter
honeybee horse hospital jeans koala lemon lipstick lollipop megaphone melon microphone monkey
motorcycle mouse mushroom octopus owl ox panda peach pear penguin pig pineapple pizza poodle
rainbow ring rocket rooster rose sailboat saxophone snail snake snowflake spider star strawberry
sunflower sunglasses taxi tent tiger tomato trumpet turtle umbrella violin volcano watch
watermelon whale
"""
# what people hold in a hand as they do weapons, and is harmless: the concept's kin (text.py)
TOOLS = (
    *("clamp", "crayon", "fishing pole", "flashlight", "gear", "hammer", "key", "microscope"),
    *("nut and bolt", "paintbrush", "paperclip", "pen", "pencil", "pick", "plug", "pushpin"),
    *("ruler", "scissors", "spoon", "syringe", "telescope", "thermometer", "trident", "wrench"),
)
HARMLESS = tuple(sorted((*_HARMLESS.split(), *TOOLS)))
NAMES = HARMLESS + WEAPONS


def caption(name: str, style: str, concept: bool = False) -> str:
    """The words of a picture; `concept` puts the concept's own word beside a weapon's name."""
    return f"{name} {CONCEPT}, {style}" if concept else f"{name}, {style}"
