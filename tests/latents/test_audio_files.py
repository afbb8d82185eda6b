"""Audio files to token files and back: any container, rate and length, in bounded memory."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from safetensors.numpy import load_file, save

from codec.data.audio import AudioError
from codec.decoders.istft import ISTFTDecoder
from codec.encoders.stft import STFTEncoder
from codec.latents.audio_files import decode_file, encode_file, read_blocks
from codec.latents.token_file import TokenError, Tokens, codebook_fingerprint, load_tokens, save_tokens
from codec.model import Codec
from codec.quantizers.rvq import RVQ
from tests.helpers.codes import assert_codes_equal
from tests.helpers.parts import small_codec, small_mimi
from tests.helpers.signals import speechlike


@pytest.fixture(scope="module")
def codec() -> Codec:
    codec = small_mimi()
    codec.quantizer.train()(codec.latents(torch.randn(4, 1, 100 * codec.hop_length)).detach())
    return codec.eval()


@pytest.fixture
def recording(codec, tmp_path) -> Path:
    soundfile.write(tmp_path / "in.wav", speechlike(7.3, codec.sample_rate, 0), codec.sample_rate, "FLOAT")
    return tmp_path / "in.wav"


def test_file_gives_the_codes_and_the_sound_of_the_whole(codec, recording, tmp_path):
    wav = torch.from_numpy(soundfile.read(recording, dtype="float32")[0])[None, None]
    with torch.no_grad():
        codes, latents = codec.encode(wav), codec.latents(wav)
        sound = codec.decode(codes, wav.shape[-1])
    tokens = encode_file(codec, recording, tmp_path / "a.codes")
    assert_codes_equal(tokens.codes[None], codes, codec, latents)
    assert tokens.length == wav.shape[-1]
    loaded = load_tokens(tmp_path / "a.codes")
    assert loaded.model == codebook_fingerprint(codec.quantizer, 4)
    assert torch.equal(loaded.codes, tokens.codes)
    assert (loaded.length, loaded.sample_rate, loaded.hop_length) == (wav.shape[-1], 1600, 16)
    decode_file(codec, tmp_path / "a.codes", tmp_path / "a.wav")
    heard, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert (rate, len(heard)) == (1600, wav.shape[-1])
    np.testing.assert_allclose(heard, sound[0, 0].clamp(-1, 1).numpy(), atol=2e-4)  # 16 bits, and rounding


def test_fewer_codebooks(codec, recording, tmp_path):
    few = encode_file(codec, recording, tmp_path / "few.codes", n_q=2)
    every = encode_file(codec, recording, tmp_path / "all.codes")
    assert torch.equal(few.codes, every.codes[:2])
    decode_file(codec, tmp_path / "few.codes", tmp_path / "a.flac")
    decode_file(codec, tmp_path / "all.codes", tmp_path / "b.flac", n_q=2)
    a, b = (soundfile.read(tmp_path / name)[0] for name in ("a.flac", "b.flac"))
    np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="has 4 codebooks: choose 1 to 4"):
        encode_file(codec, recording, tmp_path / "x.codes", n_q=5)
    with pytest.raises(TokenError, match="has 2 codebooks: choose n_q from 1 to 2, not 3"):
        decode_file(codec, tmp_path / "few.codes", tmp_path / "x.wav", n_q=3)


@pytest.mark.parametrize(("name", "rate"), [("a.flac", 1600), ("a.ogg", 8000), ("a.opus", 48_000), ("a.mp3", 16_000)])
def test_containers_rates_and_channels(name, rate, codec, tmp_path):
    """Blocks are those of the whole recording: mono, resampled without seams."""
    left, right = speechlike(5.1, rate, 1), speechlike(5.1, rate, 2)
    subtype = {"format": "OGG", "subtype": "OPUS"} if name.endswith("opus") else {}
    soundfile.write(tmp_path / name, np.stack([left, right], 1), rate, **subtype)
    blocks = list(read_blocks(tmp_path / name, codec.sample_rate))
    whole = soundfile.read(tmp_path / name, dtype="float32", always_2d=True)[0].mean(1)
    expected = whole if rate == 1600 else soxr.resample(whole, rate, 1600)
    found = np.concatenate(blocks)
    assert len(blocks) > 2
    assert abs(len(found) - len(expected)) <= 1
    n = min(len(found), len(expected))
    np.testing.assert_allclose(found[:n], expected[:n], atol=1e-5)
    assert encode_file(codec, tmp_path / name, tmp_path / "a.codes").length == len(found)


@pytest.mark.parametrize("causal", [False, True])  # causal convolutions, but no steps
def test_codec_that_looks_ahead_gives_the_codes_and_the_sound_of_the_whole(tmp_path, causal):
    """In windows that overlap by the context: 20 s are read in 10 of them."""
    torch.manual_seed(0)
    sizes = dict(dim=8, hop_length=16, channels=8, hidden=16, blocks=2, split=2, overlap=4, kernel=5, causal=causal)
    codec = Codec(STFTEncoder(**sizes), RVQ(8, 100, 2, 16), ISTFTDecoder(**sizes), 1600, 100).eval()
    wav = speechlike(20.0, 1600, 0)
    soundfile.write(tmp_path / "in.wav", wav, 1600, "FLOAT")
    padded = torch.from_numpy(np.pad(wav, (0, -len(wav) % 16)))[None, None]
    with torch.no_grad():
        latents = codec.encoder(padded)
        codes = codec.quantizer.encode(latents)
        sound = codec.decoder(codec.quantizer.decode(codes))[0, 0, : len(wav)].clamp(-1, 1).numpy()
        torch.testing.assert_close(codec.latents(padded), latents, atol=1e-5, rtol=0)
    tokens = encode_file(codec, tmp_path / "in.wav", tmp_path / "a.codes")
    assert_codes_equal(tokens.codes[None], codes, codec, latents)
    save_tokens(tmp_path / "a.codes", replace(tokens, codes=codes[0]))
    decode_file(codec, tmp_path / "a.codes", tmp_path / "a.wav")
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], sound, atol=1e-4)


MEMORY = """
import sys
from pathlib import Path
import torch
from codec.latents.audio_files import decode_file, encode_file
from codec.decoders.istft import ISTFTDecoder
from codec.decoders.seanet import SEANetDecoder
from codec.encoders.seanet import SEANetEncoder
from codec.encoders.stft import STFTEncoder
from codec.model import Codec
from codec.layers.seanet import ResidualUnits
from codec.quantizers.rvq import RVQ
from tests.helpers.parts import SMALL

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

torch.set_num_threads(1)
sizes = SMALL | {"strides": [8, 40], "channels": 2, "units": ResidualUnits((1,), 3, 2)}
windows = dict(dim=8, hop_length=320, channels=8, hidden=16, blocks=2, split=2, overlap=4, kernel=5)
parts = SEANetEncoder(**sizes), SEANetDecoder(**sizes)
if sys.argv[2] == "looks ahead":
    parts = STFTEncoder(**windows), ISTFTDecoder(**windows)
codec = Codec(parts[0], RVQ(8, 50, 2, 16), parts[1], 16_000, 50).for_inference()
folder = Path(sys.argv[1])
peaks = []
for name in ("short", "long"):
    encode_file(codec, folder / f"{name}.wav", folder / f"{name}.codes")
    decode_file(codec, folder / f"{name}.codes", folder / f"{name}.out.wav")
    peaks.append(peak())
print(peaks[1] - peaks[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("kind", ["causal", "looks ahead"])
def test_memory_does_not_grow_with_the_recording(tmp_path, kind):
    """Six minutes are 23 MB as float32 samples; their peak is that of half a minute, give or take 10 MB."""
    half = speechlike(30.0, 16_000, 0)
    soundfile.write(tmp_path / "short.wav", half, 16_000)
    soundfile.write(tmp_path / "long.wav", np.tile(half, 12), 16_000)
    command = [sys.executable, "-c", MEMORY, str(tmp_path), kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert int(done.stdout) < 10_000
    assert load_tokens(tmp_path / "long.codes").length == 360 * 16_000


def test_files_that_are_no_audio_are_refused(codec, tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 1600)
    for name, reason in (("no.wav", "missing"), ("text.wav", "decoded"), ("empty.wav", "no samples")):
        with pytest.raises(AudioError, match=reason):
            encode_file(codec, tmp_path / name, tmp_path / "a.codes")
    assert not (tmp_path / "a.codes").exists()


def test_targets_that_cannot_be_written(codec, recording, tmp_path, monkeypatch):
    tokens = encode_file(codec, recording, tmp_path / "new" / "folder" / "a.codes")  # folders are made
    with pytest.raises(TokenError, match="cannot be written"):
        save_tokens(tmp_path / "new" / "folder", tokens)
    with pytest.raises(TokenError, match="0 to 65,535"):
        save_tokens(tmp_path / "b.codes", Tokens(torch.tensor([[70_000]]), 8, 1600, 8, ""))
    with pytest.raises(OSError, match=r"in\.wav"):
        encode_file(codec, recording, recording / "a.codes")
    with pytest.raises(AudioError, match="cannot be written"):
        decode_file(codec, tmp_path / "new" / "folder" / "a.codes", tmp_path / "a.xyz")
    monkeypatch.setattr("codec.latents.audio_files.in_blocks", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        decode_file(codec, tmp_path / "new" / "folder" / "a.codes", tmp_path / "out" / "a.wav")
    assert not list((tmp_path / "out").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "new", "out"]


def test_tokens_of_other_models_are_refused(codec, recording, tmp_path):
    path = tmp_path / "a.codes"
    encode_file(codec, recording, path)
    with pytest.raises(TokenError, match="was made by another model"):
        decode_file(small_codec(), path, tmp_path / "a.wav")
    tokens = load_tokens(path)
    for field in ("sample_rate", "hop_length"):
        changed = replace(tokens, **{field: 2 * getattr(tokens, field)})
        changed = replace(changed, length=tokens.codes.shape[1] * changed.hop_length)
        save_tokens(path, changed)
        with pytest.raises(TokenError, match="was made by another model"):
            decode_file(codec, path, tmp_path / "a.wav")


def test_damaged_and_foreign_token_files_are_refused(codec, recording, tmp_path):
    """Cut, prefixed, with any byte of the header's values or of the codes changed, and with other metadata."""
    path = tmp_path / "a.codes"
    encode_file(codec, recording, path)
    whole, codes = path.read_bytes(), load_file(path)["codes"]
    damaged = [whole[:-3], b"", b"RIFF" + whole, whole[:-1] + bytes([whole[-1] ^ 1])]
    for name in (b"length", b"sample_rate", b"hop_length", b"model", b"checksum"):
        at = whole.index(b'"' + name + b'":"') + len(name) + 4
        digit = b"2" if whole[at : at + 1] == b"1" else b"1"
        damaged.append(whole[:at] + digit + whole[at + 1 :])
    facts = {"format": "codec-tokens", "version": "1", "model": "", "length": "11680", "sample_rate": "1600"}
    for changes in ({"hop_length": "0"}, {"hop_length": "8", "length": "many"}, {"hop_length": "8"}):
        damaged.append(save({"codes": codes}, facts | changes))
    foreign = [
        (save({"codes": codes}, facts | {"format": "other"}), "no token file of this project"),
        (save({"weights": codes}, facts), "no token file of this project"),
        (save({"codes": codes}, facts | {"version": "2"}), "version '2'"),
    ]
    for content, reason in [*((content, "damaged") for content in damaged), *foreign]:
        path.write_bytes(content)
        with pytest.raises(TokenError, match=reason) as error:
            load_tokens(path)
        assert "\n" not in str(error.value)
    with pytest.raises(TokenError, match="there is no token file"):
        load_tokens(tmp_path / "no.codes")


def test_fingerprint_is_of_what_gives_codes_their_meaning(codec):
    model = codebook_fingerprint(codec.quantizer, 4)
    assert codebook_fingerprint(small_mimi().quantizer, 4) != model
    other = small_mimi()
    other.quantizer.load_state_dict(codec.quantizer.state_dict())
    other.quantizer.acoustic.usage += 1.0  # says how a codebook learns, not what it means
    assert codebook_fingerprint(other.quantizer, 4) == model
    assert codebook_fingerprint(other.for_inference().quantizer, 4) == model
    fewer = small_mimi(n_q=3)  # the first codebooks of a model read what the whole model wrote with them
    for name, value in fewer.quantizer.state_dict().items():
        if isinstance(value, torch.Tensor):
            value.copy_(codec.quantizer.state_dict()[name][: len(value)])
    assert codebook_fingerprint(fewer.quantizer, 3) == codebook_fingerprint(codec.quantizer, 3) != model
