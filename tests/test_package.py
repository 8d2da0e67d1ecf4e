"The wheel works without the source tree, with the teaching model inside."
import os
import subprocess
import sys
from pathlib import Path
import zipfile

ROOT = Path(__file__).parent.parent

def test_wheel_works_elsewhere(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    wheel, = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(n.endswith("teaching_model/model.safetensors") for n in names)
    assert not any(n.endswith((".bin", ".pkl", ".pt")) or n.startswith(("tests", "nbs")) for n in names)
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = ("import avss_nb, avss_nb.teaching as t, pathlib; assert str(pathlib.Path(avss_nb.__file__)).startswith(%r), avss_nb.__file__;"
            "m, tok = t.load_teaching_model(); print(sum(p.numel() for p in m.parameters()))" % str(site))
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"},
                         capture_output=True, text=True)
    assert run.returncode == 0 and int(run.stdout) > 2_000_000, run.stderr[-2000:]

def test_the_model_is_small_and_the_import_light(tmp_path):
    size = sum(p.stat().st_size for p in (ROOT / "avss_nb/teaching_model").iterdir())
    assert size <= 8_000_000
    code = "import sys, avss_nb.cli; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]", "the command line must not import heavy packages before it needs them"
