"""Stubble, moustache, goatee, beard and sideburns of a cartoon face (our choice throughout)."""

import numpy as np
from PIL import Image, ImageFilter

from pipeline.demo.canvas import Canvas, Points, blend, curve, mirrored, moved, points, scaled
from pipeline.demo.face_parameters import FaceParameters
from pipeline.demo.head import Head


def draw_beard(canvas: Canvas, head: Head, params: FaceParameters, face: Image.Image) -> None:
    """Stubble, moustache, goatee, full beard and sideburns, as tone with hairs in it."""
    person, turn, w = params.person, head.turn, head.half_width
    y, chin = head.mouth_y, head.chin
    whiskers = person.facial_hair in ("moustache", "goatee", "beard")
    regions: list[Points] = []
    if person.facial_hair in ("moustache", "goatee", "beard"):
        half = points(
            (0, head.nose_y + 6.5), (9, head.nose_y + 7), (18, y - 1), (21, y + 5), (14, y - 2.2), (0, y - 3.4)
        )
        regions.append(moved(curve(mirrored(half), closed=True), turn * 1.2, 0))
    if person.facial_hair == "goatee":
        half = points((0, y + 8), (9, y + 8.5), (15, y + 6), (16, chin - 4), (9, chin + 4), (0, chin + 7))
        regions.append(moved(curve(mirrored(half), closed=True), turn, 0))
    if person.facial_hair in ("beard", "stubble"):
        grow = 5 if person.facial_hair == "beard" else -0.5
        outer = points((w + 0.5, 112), (w + grow * 0.3, 130), (w * (0.82 + 0.14 * person.jaw), chin - 16 + grow * 0.5))
        lower = points((w * 0.45, chin - 1 + grow), (0, chin + 1 + grow))
        right = np.concatenate(
            [points((0, y + 8), (12, y + 7), (24, y - 2), (w * 0.85, y - 14), (w - 4, 112)), outer, lower]
        )
        regions.append(moved(curve(mirrored(right), closed=True, steps=6), turn * 0.4, 0))
    if person.sideburns or person.facial_hair == "beard":
        for side in (-1, 1):
            burn = points((w + 1, 84), (w + 0.5, 126), (w - 6, 124), (w - 8, 84)) * (side, 1)
            regions.append(burn - (turn * 0.3, 0))
    rng = np.random.default_rng(person.texture + 3)
    for region in regions:
        stubble = person.facial_hair == "stubble" and len(region) > 8
        tone = blend(scaled(head.hair, 0.8), head.shadow, 0.2)
        if stubble:
            mask = canvas.mask(region, blur=3.5, clip=face)
            canvas.fill(region, blend(tone, head.shadow, 0.35), 0.48, blur=3.5, clip=face)
        else:
            mask = canvas.mask(region, blur=0.9)
            canvas.fill(region, tone, 0.92, blur=0.9)
        low, high = region.min(0), region.max(0)
        roots = rng.uniform(low, high, (260 if stubble else 420, 2))
        length = 0.9 if stubble else 4.5 + whiskers
        away = roots[:, 0] - turn
        droop = np.stack([0.35 * np.sign(away) * np.abs(away) ** 0.5, np.ones(len(roots))], axis=1)
        hairs = np.stack([roots, roots + length * droop * rng.uniform(0.5, 1, (len(roots), 1))], axis=1)
        clip = mask.filter(ImageFilter.GaussianBlur(0.5 * canvas.scale))
        canvas.strands(hairs, np.array(tone) * rng.uniform(0.55, 1.45, (len(roots), 1)), 0.55, clip=clip)
