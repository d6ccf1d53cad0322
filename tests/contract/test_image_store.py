"""Pictures, each written once: one suite over S3 in moto, in ministack, and the fake in memory."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any, Protocol

import pytest
from aws_servers import NOWHERE, Cloud, one_attempt_client
from botocore.exceptions import ConnectionClosedError
from fakes import FakeImageStore
from fakes.endpoint import DENIED_XML, denying, endpoint

from scheduler.domain.errors import AccessDenied, Unavailable
from scheduler.domain.ports import ImageStore
from scheduler.domain.task import EngineImage, StoredImage
from scheduler.stores.images import CONFLICT_ATTEMPTS, S3ImageStore

KEY = "tasks/task-1/1.png"
FIRST = EngineImage(
    data=b"\x89PNG first" * 100, media_type="image/png", extension=".png", width=512, height=768, seed=1234567890
)
SECOND = EngineImage(data=b"RIFF second", media_type="image/webp", extension=".webp", width=64, height=32, seed=7)
CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code><Message>a write is under way</Message></Error>"


def stored(key: str, image: EngineImage) -> StoredImage:
    return StoredImage(
        key=key,
        media_type=image.media_type,
        size_bytes=len(image.data),
        sha256=hashlib.sha256(image.data).hexdigest(),
        width=image.width,
        height=image.height,
        seed=image.seed,
    )


class Shelf(Protocol):
    """A store under test, and the bytes that others find in it."""

    store: ImageStore

    def data(self, key: str) -> bytes: ...


class FakeShelf:
    store: ImageStore

    def __init__(self) -> None:
        self.store = self.fake = FakeImageStore()

    def data(self, key: str) -> bytes:
        return self.fake.data[key]


class S3Shelf:
    store: ImageStore

    def __init__(self, cloud: Cloud) -> None:
        self.client = cloud.clients.s3
        self.bucket = cloud.bucket()
        self.store = S3ImageStore(self.client, self.bucket)

    def data(self, key: str) -> bytes:
        with self.client.get_object(Bucket=self.bucket, Key=key)["Body"] as stream:
            return bytes(stream.read())

    def head(self, key: str) -> dict[str, Any]:
        return dict(self.client.head_object(Bucket=self.bucket, Key=key))


@pytest.fixture(params=["fake", "moto", "ministack"])
def shelf(request: pytest.FixtureRequest) -> Shelf:
    return FakeShelf() if request.param == "fake" else S3Shelf(request.getfixturevalue(request.param))


@pytest.fixture
def s3(cloud: Cloud) -> S3Shelf:
    return S3Shelf(cloud)


def test_picture_is_stored_as_it_is(shelf: Shelf) -> None:
    assert shelf.store.put(KEY, FIRST) == stored(KEY, FIRST)
    assert shelf.data(KEY) == FIRST.data


def test_second_writer_is_told_what_lies_there(shelf: Shelf) -> None:
    shelf.store.put(KEY, FIRST)
    assert shelf.store.put(KEY, SECOND) == stored(KEY, FIRST)
    assert shelf.data(KEY) == FIRST.data


def test_the_same_picture_again_is_the_same_answer(shelf: Shelf) -> None:
    assert shelf.store.put(KEY, FIRST) == shelf.store.put(KEY, FIRST)


@pytest.mark.parametrize("seed", [None, 0, 2**32 - 1])
def test_seed_survives_whatever_it_is(shelf: Shelf, seed: int | None) -> None:
    image = EngineImage(data=b"x", media_type="image/png", extension=".png", width=1, height=1, seed=seed)
    assert shelf.store.put(KEY, image).seed == seed
    assert shelf.store.put(KEY, SECOND).seed == seed


def test_what_has_no_size_in_pixels_is_stored_and_read_without(shelf: Shelf) -> None:
    video = EngineImage(data=b"ftyp", media_type="video/mp4", extension=".mp4", seed=3)
    first, again = shelf.store.put("1.mp4", video), shelf.store.put("1.mp4", video)
    assert first == again
    assert (again.width, again.height, again.seed, again.media_type) == (None, None, 3, "video/mp4")


def test_keys_do_not_disturb_each_other(shelf: Shelf) -> None:
    shelf.store.put(KEY, FIRST)
    other = "sd/out/task-1-r2-1.png"
    assert shelf.store.put(other, SECOND) == stored(other, SECOND)
    assert (shelf.data(KEY), shelf.data(other)) == (FIRST.data, SECOND.data)


def test_racing_writers_all_hear_of_one_picture(shelf: Shelf) -> None:
    images = [
        EngineImage(data=bytes([n]) * 1000, media_type="image/png", extension=".png", width=n, height=1, seed=n)
        for n in range(6)
    ]
    gate = threading.Barrier(len(images))
    answers: list[StoredImage] = []

    def put(image: EngineImage) -> None:
        gate.wait(10)
        answers.append(shelf.store.put(KEY, image))

    threads = [threading.Thread(target=put, args=(image,)) for image in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == len(images)
    data = shelf.data(KEY)
    assert set(answers) == {stored(KEY, images[data[0]])}


def test_object_can_be_kept_by_caches_and_tells_its_origin(s3: S3Shelf) -> None:
    s3.store.put(KEY, FIRST)
    head = s3.head(KEY)
    assert head["CacheControl"] == "public, max-age=31536000, immutable"
    assert head["ContentType"] == "image/png"
    assert head["ContentLength"] == len(FIRST.data)
    assert head["Metadata"] == {
        "sha256": hashlib.sha256(FIRST.data).hexdigest(),
        "width": "512",
        "height": "768",
        "seed": "1234567890",
    }


def test_object_without_a_seed_names_none(s3: S3Shelf) -> None:
    image = EngineImage(data=b"x", media_type="image/png", extension=".png", width=1, height=1)
    s3.store.put(KEY, image)
    assert "seed" not in s3.head(KEY)["Metadata"]


def test_object_that_somebody_else_put_there_is_left_and_described_as_far_as_it_can_be(s3: S3Shelf) -> None:
    s3.client.put_object(Bucket=s3.bucket, Key=KEY, Body=b"theirs", ContentType="image/jpeg")
    assert s3.store.put(KEY, FIRST) == StoredImage(
        key=KEY, media_type="image/jpeg", size_bytes=6, sha256="", width=None, height=None
    )
    assert s3.data(KEY) == b"theirs"


class Bucket:
    """An S3 endpoint that answers each PUT with the next of `puts`, the last of them for ever."""

    def __init__(self, *puts: tuple[int, bytes]) -> None:
        self._puts = puts
        self.requests: list[str] = []

    def respond(self, method: str, path: str, _body: bytes) -> tuple[int, bytes]:
        self.requests.append(method)
        return self._puts[min(len(self.requests), len(self._puts)) - 1]


def test_conflict_with_a_write_under_way_is_tried_again() -> None:
    bucket = Bucket((409, CONFLICT), (409, CONFLICT), (200, b""))
    with endpoint(bucket.respond) as url, one_attempt_client("s3", url) as client:
        assert S3ImageStore(client, "pictures").put(KEY, FIRST) == stored(KEY, FIRST)
    assert bucket.requests == ["PUT"] * 3


def test_conflict_without_end_is_unavailable() -> None:
    bucket = Bucket((409, CONFLICT))
    with (
        endpoint(bucket.respond) as url,
        one_attempt_client("s3", url) as client,
        pytest.raises(Unavailable, match=rf"storing s3://pictures/{KEY}.*ConditionalRequestConflict"),
    ):
        S3ImageStore(client, "pictures").put(KEY, FIRST)
    assert bucket.requests == ["PUT"] * CONFLICT_ATTEMPTS


def test_other_errors_are_not_taken_for_conflicts() -> None:
    slow_down = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    bucket = Bucket((503, slow_down))
    with (
        endpoint(bucket.respond) as url,
        one_attempt_client("s3", url) as client,
        pytest.raises(Unavailable, match="SlowDown") as caught,
    ):
        S3ImageStore(client, "pictures").put(KEY, FIRST)
    assert type(caught.value) is Unavailable
    assert bucket.requests == ["PUT"]


def test_picture_that_vanishes_while_it_is_looked_at_is_unavailable_and_can_be_tried_again() -> None:
    """Lost the race, and then what won it was deleted: HEAD has no body, so that all it says is 404."""
    failed = b"<Error><Code>PreconditionFailed</Code><Message>it is there</Message></Error>"
    bucket = Bucket((412, failed), (404, b""), (200, b""))
    with endpoint(bucket.respond) as url, one_attempt_client("s3", url) as client:
        store = S3ImageStore(client, "pictures")
        with pytest.raises(Unavailable):
            store.put(KEY, FIRST)
        assert store.put(KEY, FIRST) == stored(KEY, FIRST)
    assert bucket.requests == ["PUT", "HEAD", "PUT"]


def test_refused_write_is_a_matter_for_a_person() -> None:
    with denying() as url, one_attempt_client("s3", url) as client, pytest.raises(AccessDenied, match="AccessDenied"):
        S3ImageStore(client, "pictures").put(KEY, FIRST)


def test_refused_look_at_what_lies_there_is_too() -> None:
    failed = b"<Error><Code>PreconditionFailed</Code><Message>it is there</Message></Error>"
    bucket = Bucket((412, failed), (403, b""))
    with endpoint(bucket.respond) as url, one_attempt_client("s3", url) as client, pytest.raises(AccessDenied):
        S3ImageStore(client, "pictures").put(KEY, FIRST)


def test_store_that_is_down_loses_nothing_by_being_asked_again(cloud: Cloud) -> None:
    shelf = S3Shelf(cloud)
    with one_attempt_client("s3", NOWHERE) as client:
        with pytest.raises(Unavailable, match="storing s3://") as caught:
            S3ImageStore(client, shelf.bucket).put(KEY, FIRST)
        assert type(caught.value) is Unavailable
    assert shelf.store.put(KEY, FIRST) == stored(KEY, FIRST)


def test_answer_lost_on_the_way_back_is_found_out_by_asking_again(cloud: Cloud) -> None:
    """The write was applied; the second try meets its own picture, and says so as if nothing had happened."""
    shelf = S3Shelf(cloud)

    def break_off(**_: Any) -> None:
        raise ConnectionClosedError(endpoint_url=cloud.url)

    with one_attempt_client("s3", cloud.url) as client:
        client.meta.events.register("after-call.s3.PutObject", break_off, "lost")
        store = S3ImageStore(client, shelf.bucket)
        with pytest.raises(Unavailable):
            store.put(KEY, FIRST)
        client.meta.events.unregister("after-call.s3.PutObject", unique_id="lost")
        assert store.put(KEY, FIRST) == stored(KEY, FIRST)
    assert shelf.data(KEY) == FIRST.data


def test_a_missing_bucket_is_unavailable(cloud: Cloud) -> None:
    with pytest.raises(Unavailable, match="NoSuchBucket"):
        S3ImageStore(cloud.clients.s3, "no-such-bucket-here").put(KEY, FIRST)


def test_json_is_written_once_and_read_back(shelf: Shelf) -> None:
    shelf.store.put_json("tasks/task-1/images.json", {"images": [{"key": "käfer", "bytes": 1}]})
    shelf.store.put_json("tasks/task-1/images.json", {"images": []})
    assert shelf.store.read_json("tasks/task-1/images.json") == {"images": [{"key": "käfer", "bytes": 1}]}
    assert shelf.store.read_json("tasks/task-2/images.json") is None


@pytest.mark.parametrize("status", [403, 404])
def test_json_that_is_not_there_is_none_also_where_a_role_may_not_list(status: int) -> None:
    """Without s3:ListBucket S3 says AccessDenied of a key under which nothing lies."""
    body = DENIED_XML if status == 403 else b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
    with endpoint(lambda *_: (status, body)) as url, one_attempt_client("s3", url) as client:
        assert S3ImageStore(client, "pictures").read_json("tasks/task-1/images.json") is None


def test_json_says_what_it_is(s3: S3Shelf) -> None:
    s3.store.put_json("out/t/t-7fce.out", {"code": 200})
    assert s3.head("out/t/t-7fce.out")["ContentType"] == "application/json"
    assert json.loads(s3.data("out/t/t-7fce.out")) == {"code": 200}
