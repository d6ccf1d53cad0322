"""One picture of a job on its way into the answer: painted and encoded early, spoilt later if it must be."""

from __future__ import annotations

from dataclasses import dataclass, replace

from PIL import Image

from scheduler.local.standin import painter, pictures
from scheduler.local.standin.job import Job


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture, the words that go with it, and its base64 if that is made already."""

    picture: Image.Image
    infotext: str
    encoded: str | None = None

    def base64(self, samples_format: str) -> str:
        """Return it as the answer carries it."""
        return self.encoded or pictures.encode(self.picture, self.infotext, samples_format)

    def half_done(self, done: float, seed: int) -> Frame:
        """Return what an interrupt leaves of it."""
        return Frame(painter.half_done(self.picture, done, seed), self.infotext)

    def black(self) -> Frame:
        """Return it all black."""
        return Frame(Image.new("RGB", self.picture.size), self.infotext)

    def corrupt(self, samples_format: str) -> Frame:
        """Return it with half of its bytes."""
        return replace(self, encoded=pictures.cut_in_half(self.base64(samples_format)))


def finished(job: Job, index: int, samples_format: str) -> Frame:
    """Return one picture of the job as it is after all its steps, encoded."""
    picture = _painted(job, index)
    infotext = job.infotext(index)
    return Frame(picture, infotext, pictures.encode(picture, infotext, samples_format))


def grid(frames: list[Frame]) -> Frame:
    """Return all pictures in one, with the first one's words."""
    return Frame(pictures.contact_grid([frame.picture for frame in frames]), frames[0].infotext)


def _painted(job: Job, index: int) -> Image.Image:
    seed, sources = job.seeds[index], job.sources.images
    picture = painter.paint(job.prompt, seed, job.checkpoint.model_name, job.size)
    if sources:
        source = sources[index % len(sources)].resize(job.size, Image.Resampling.BICUBIC)
        picture = Image.blend(source, picture, min(1.0, max(0.0, job.values["denoising_strength"])))
        if job.sources.mask is not None:
            mask = job.sources.mask.convert("L").resize(job.size)
            inverted = bool(job.values["inpainting_mask_invert"])
            picture = Image.composite(source if inverted else picture, picture if inverted else source, mask)
    painter.caption(picture, job.prompt, f"seed {seed} · {job.checkpoint.model_name}")
    return picture
