"""What a cartoon face is made of: the lasting traits of a person, the passing ones of a picture, and their attributes.

All thresholds and probabilities are our choice; the drawing in `cartoon_faces` makes each of them visible.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

HairColour = Literal["black", "brown", "blond", "gray", "auburn"]
HairStyle = Literal["bald", "receding", "crop", "curls", "bun", "bob", "long"]
Hat = Literal["none", "beanie", "brim"]
FacialHair = Literal["none", "stubble", "moustache", "goatee", "beard"]


@dataclass(frozen=True)
class Person:
    """Traits shared by all pictures of one identity; numbers are 0…1 unless said otherwise."""

    male: bool
    age: float  # years
    skin: float  # 0 very pale … 1 very dark
    face_width: float
    jaw: float  # 0 pointed … 1 square
    face_length: float
    double_chin: bool
    high_cheekbones: bool
    ears: float
    hair_colour: HairColour
    hair_style: HairStyle
    wavy: bool  # seen in long hair and bobs only
    bangs: bool
    sideburns: bool
    parting: float  # -1 left … 1 right
    facial_hair: FacialHair
    eye_colour: tuple[float, float, float]  # RGB 0…255
    eye_spacing: float
    eye_size: float
    eye_opening: float
    bags: bool
    brow_thickness: float
    brow_arch: float
    nose_width: float
    nose_length: float
    lips: float
    texture: int  # seed of strands, freckles and stubble


@dataclass(frozen=True)
class Sitting:
    """What changes from one picture of a person to the next."""

    smile: float  # -0.3 … 1
    mouth_open: float  # 0 … 1
    glasses: bool
    hat: Hat
    lipstick: bool
    makeup: bool
    rosy: bool
    earrings: bool
    necklace: bool
    necktie: bool
    yaw: float  # -1 … 1, positive looks to the right of the picture
    tilt: float  # radians
    shift: tuple[float, float]  # units of the 178 x 218 frame
    light: float  # -1 light from the left … 1 from the right
    warmth: float  # -1 cool … 1 warm
    exposure: float  # factor
    softness: float  # standard deviation of the blur, in units of the frame
    hue: float  # of the background, 0 … 1
    bright: float  # of the background, 0 … 1
    backdrop: int  # 0 plain, 1 out-of-focus lights, 2 foliage, 3 wall
    clothes: float  # hue, 0 … 1
    texture: int  # seed of background and grain


@dataclass(frozen=True)
class FaceParameters:
    """One picture of one person."""

    person: Person
    sitting: Sitting


_HAIR: tuple[HairColour, ...] = ("brown", "black", "blond", "auburn", "black", "brown", "blond", "black")
_MALE_STYLES: tuple[HairStyle, ...] = ("crop", "receding", "curls", "crop", "bald", "crop")
_FEMALE_STYLES: tuple[HairStyle, ...] = ("long", "bob", "long", "bun", "curls", "bob")
_BEARDS: tuple[FacialHair, ...] = ("none", "beard", "stubble", "goatee", "none", "moustache")
_EYES = ((92.0, 58.0, 34.0), (70.0, 110.0, 150.0), (82.0, 118.0, 78.0), (60.0, 40.0, 28.0), (120.0, 96.0, 52.0))


def sample_person(rng: np.random.Generator, number: int) -> Person:
    """A person; ``number`` walks through sexes, hair and skin so that even a few people are clearly different."""
    male = number % 2 == 1
    skin = float(np.clip((number * 0.381966 + 0.12) % 1.0 + rng.normal(0, 0.04), 0, 1))
    age = float(rng.uniform(48, 74) if number % 4 == 3 or rng.random() < 0.1 else rng.uniform(19, 42))
    turn = number // 2 + int(rng.integers(2))
    style = (_MALE_STYLES if male else _FEMALE_STYLES)[turn % 6]
    colour = _HAIR[(number + int(rng.integers(2))) % len(_HAIR)]
    if skin > 0.6 and colour in ("blond", "auburn"):
        colour = "black"
    if age > 55:
        colour = "gray"
    width = float(rng.beta(1.6, 1.8))
    return Person(
        male=male,
        age=age,
        skin=skin,
        face_width=width,
        jaw=float(rng.uniform(0.45, 1.0) if male else rng.uniform(0.0, 0.55)),
        face_length=float(rng.random()),
        double_chin=width > 0.7 and (age > 45 or rng.random() < 0.4),
        high_cheekbones=width < 0.7 and rng.random() < 0.5,
        ears=float(rng.random()),
        hair_colour=colour,
        hair_style=style,
        wavy=bool(rng.random() < 0.5),
        bangs=style in ("long", "bob", "crop") and rng.random() < 0.35,
        sideburns=male and style not in ("bald",) and rng.random() < 0.4,
        parting=float(rng.uniform(-1, 1)),
        facial_hair=_BEARDS[(turn + int(rng.integers(3))) % 6] if male else "none",
        eye_colour=_EYES[int(rng.integers(len(_EYES))) if skin < 0.55 else int(rng.choice([0, 3, 3]))],
        eye_spacing=float(rng.random()),
        eye_size=float(rng.random()),
        eye_opening=float(rng.beta(2.2, 1.5)),
        bags=age > 50 and rng.random() < 0.6,
        brow_thickness=float(rng.uniform(0.4, 1.0) if male else rng.uniform(0.0, 0.65)),
        brow_arch=float(rng.uniform(0.0, 0.5) if male else rng.uniform(0.2, 1.0)),
        nose_width=float(rng.random()),
        nose_length=float(rng.random()),
        lips=float(rng.uniform(0, 0.75) if male else rng.uniform(0.3, 1.0)),
        texture=int(rng.integers(2**31)),
    )


def sample_sitting(rng: np.random.Generator, person: Person) -> Sitting:
    """One occasion on which ``person`` is drawn."""
    smile = float(rng.choice([rng.uniform(0.65, 1.0), rng.uniform(-0.2, 0.3)], p=[0.55, 0.45]))
    makeup = not person.male and rng.random() < 0.3
    hat: Hat = "none"
    if rng.random() < 0.15:
        hat = "beanie" if person.hair_style == "curls" or rng.random() < 0.5 else "brim"
    dressed = bool(rng.random() < 0.35)
    return Sitting(
        smile=smile,
        mouth_open=float(rng.uniform(0.35, 1.0)) if rng.random() < (0.6 if smile > 0.5 else 0.25) else 0.0,
        glasses=bool(rng.random() < 0.22),
        hat=hat,
        lipstick=makeup or (not person.male and rng.random() < 0.35),
        makeup=bool(makeup),
        rosy=bool(makeup or rng.random() < 0.2),
        earrings=not person.male and bool(rng.random() < 0.4),
        necklace=not person.male and bool(rng.random() < 0.25),
        necktie=person.male and dressed,
        yaw=float(rng.uniform(-0.8, 0.8)),
        tilt=float(rng.normal(0, 0.045)),
        shift=(float(rng.normal(0, 2.0)), float(rng.normal(0, 1.5))),
        light=float(rng.choice([-1, 1]) * rng.uniform(0.25, 1.0)),
        warmth=float(rng.uniform(-0.5, 1.0)),
        exposure=float(rng.uniform(0.88, 1.08)),
        softness=float(rng.uniform(1.8, 2.2) if rng.random() < 0.05 else rng.uniform(0.0, 0.5)),
        hue=float(rng.random()),
        bright=float(rng.beta(1.3, 1.3)),
        backdrop=int(rng.integers(4)),
        clothes=float(rng.random()),
        texture=int(rng.integers(2**31)),
    )


def attributes_of(params: FaceParameters) -> dict[str, bool]:
    """The 40 Celeb-A attributes of a drawing: what can be *seen* in it, so a hat hides baldness, bangs and hairline.

    ``Attractive`` has no truth to draw: our choice is a purely conventional stand-in (young, neither tired, chubby nor
    bald) that keeps the column from being constant. ``No_Beard`` is true without beard, goatee, moustache and stubble.
    """
    person, sitting = params.person, params.sitting
    bare = sitting.hat == "none"
    bald = person.hair_style == "bald"
    young = person.age < 45
    chubby = person.face_width > 0.7
    smiling = sitting.smile > 0.5
    wavy = person.hair_style == "curls" or (person.wavy and person.hair_style in ("long", "bob"))
    bangs = person.bangs and bare and not bald
    return {
        "5_o_Clock_Shadow": person.facial_hair == "stubble",
        "Arched_Eyebrows": person.brow_arch > 0.55,
        "Attractive": young and not (person.bags or chubby or bald),
        "Bags_Under_Eyes": person.bags,
        "Bald": bald and bare,
        "Bangs": bangs,
        "Big_Lips": person.lips > 0.7,
        "Big_Nose": person.nose_width > 0.65,
        "Black_Hair": person.hair_colour == "black" and not bald,
        "Blond_Hair": person.hair_colour == "blond" and not bald,
        "Blurry": sitting.softness > 1.5,
        "Brown_Hair": person.hair_colour == "brown" and not bald,
        "Bushy_Eyebrows": person.brow_thickness > 0.65,
        "Chubby": chubby,
        "Double_Chin": person.double_chin,
        "Eyeglasses": sitting.glasses,
        "Goatee": person.facial_hair in ("goatee", "beard"),
        "Gray_Hair": person.hair_colour == "gray" and not bald,
        "Heavy_Makeup": sitting.makeup,
        "High_Cheekbones": person.high_cheekbones,
        "Male": person.male,
        "Mouth_Slightly_Open": sitting.mouth_open > 0,
        "Mustache": person.facial_hair in ("moustache", "beard"),
        "Narrow_Eyes": person.eye_opening < 0.4,
        "No_Beard": person.facial_hair == "none",
        "Oval_Face": person.face_length > 0.4 and person.face_width < 0.5 and person.jaw < 0.6,
        "Pale_Skin": person.skin < 0.1,
        "Pointy_Nose": person.nose_width < 0.35 and person.nose_length > 0.4,
        "Receding_Hairline": person.hair_style == "receding" and bare,
        "Rosy_Cheeks": sitting.rosy,
        "Sideburns": person.sideburns or person.facial_hair == "beard",
        "Smiling": smiling,
        "Straight_Hair": not (wavy or bald),
        "Wavy_Hair": wavy,
        "Wearing_Earrings": sitting.earrings,
        "Wearing_Hat": not bare,
        "Wearing_Lipstick": sitting.lipstick,
        "Wearing_Necklace": sitting.necklace,
        "Wearing_Necktie": sitting.necktie,
        "Young": young,
    }
