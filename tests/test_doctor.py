"The doctor on set-ups that are really broken: each is found, and answered by what to do."

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from llmlab.course import doctor

# --- packages -----------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path):
    "A folder of packages that stand before the real ones, and a function that asks the doctor there."
    folder = tmp_path / "site"
    folder.mkdir()

    def ask(check, **env):
        code = f"from llmlab.course import doctor; import json; print(json.dumps([*doctor.{check}()]))"
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])} | env
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path
        )
        assert ran.returncode == 0, ran.stderr
        return [doctor.Finding(*row) for row in json.loads(ran.stdout)]

    ask.folder = folder
    return ask


def installed(folder: Path, name: str, version: str | None, *requires: str) -> None:
    "What pip leaves of a package, and the requirements it states."
    there = folder / f"{name.replace('-', '_')}-{version or 0}.dist-info"
    there.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", *([f"Version: {version}"] if version else [])]
    lines += [f"Requires-Dist: {need}" for need in requires]
    (there / "METADATA").write_text("\n".join(lines) + "\n\n")
    (there / "top_level.txt").write_text("llmlab\n" if requires else f"{name}\n")


def test_requirements_come_from_the_package_that_brought_llmlab(site):
    "A package of another name than ours; its requirements are too old, missing, half there, for a laptop."
    installed(
        site.folder, "another-name", "3.0", "numpy>=99", "nosuch>=1", "half", 'other>=2; extra == "course"'
    )
    installed(site.folder, "half", None)
    found = site("check_packages")
    assert [f.state for f in found] == ["broken", "broken", "broken", "note"]
    assert found[0].what.startswith("numpy ") and found[0].what.endswith("does not meet >=99")
    assert found[0].todo == 'pip install "numpy>=99"'
    assert found[1] == ("broken", "nosuch is missing", 'pip install "nosuch>=1"')
    assert found[2].todo == "pip install --force-reinstall half"
    assert found[3] == ("note", "other is missing", 'pip install "other>=2"')


def test_here_every_requirement_of_ours_is_looked_at():
    found = [f.what.split()[0] for f in doctor.check_packages()]
    assert {"torch", "tokenizers", "anywidget", "jupyterlab"} <= set(found)


def test_a_folder_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(doctor, "packages_distributions", dict)
    assert [f.todo for f in doctor.check_packages()] == ['pip install -e ".[course]" in that folder']


@pytest.mark.parametrize(
    "source, said",
    [
        ("raise ImportError('libtorch_cpu.so: cannot open')", "torch cannot be imported: ImportError"),
        ("import nosuch_part", "torch cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)", "torch cannot be imported: SystemExit: 3"),
        ("import os; os.abort()", "import torch ends Python"),
        ("import os; os._exit(0)", "import torch ends Python"),
    ],
)
def test_a_torch_that_is_there_and_cannot_be_imported(site, source, said):
    (site.folder / "torch").mkdir()
    (site.folder / "torch" / "__init__.py").write_text(source)
    wrong = [f for f in site("check_imports") if f.state != "ok"]
    assert len(wrong) == 1 and wrong[0].what.startswith(said)
    assert wrong[0].todo == "pip install --force-reinstall torch"


def test_what_breaks_several_packages_is_mended_at_its_source(site):
    for name in ("numpy", "torch"):
        (site.folder / name).mkdir()
        (site.folder / name / "__init__.py").write_text(
            "raise ImportError('\\n\\nPLEASE READ\\n\\nfile too short')"
        )
    wrong = {f.what.split()[0]: f for f in site("check_imports") if f.state != "ok"}
    assert {"numpy", "torch"} <= set(wrong)
    assert wrong["torch"].what == "torch cannot be imported: ImportError: file too short"
    assert {f.todo for f in wrong.values()} == {"pip install --force-reinstall numpy"}


def test_the_device_is_told_where_all_is_well(site):
    found = site("check_imports")
    assert [f.state for f in found] == ["ok"] and found[0].what.startswith("device: ")


# --- the hub's cache ----------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "models--me--tiny"
    for part in ("blobs", "refs", "snapshots/0a1b"):
        (folder / part).mkdir(parents=True)
    (folder / "refs" / "main").write_text("0a1b")
    header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "blobs" / "w").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    (folder / "snapshots" / "0a1b" / "model.safetensors").symlink_to(folder / "blobs" / "w")
    return folder


def test_a_whole_cache_is_well(cache):
    assert {f.state for f in doctor.check_cache()} <= {"ok", "note"} and doctor.cache_damage(cache) is None


def cut(folder):
    path = folder / "blobs" / "w"
    path.write_bytes(path.read_bytes()[:-1])


def lose_the_file(folder):
    (folder / "blobs" / "w").unlink()


def lose_the_snapshot(folder):
    (folder / "refs" / "main").write_text("ffff")


def page_instead(folder):
    (folder / "blobs" / "w").write_text("<html>Sign in to your network</html>")


def unreadable_name(folder):
    (folder / "refs" / "main").write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    "harm, said",
    [
        (cut, "model.safetensors is cut short"),
        (lose_the_file, "the file behind model.safetensors is gone"),
        (lose_the_snapshot, "there is no snapshot 'ffff'"),
        (page_instead, "no safetensors file"),
        (unreadable_name, "it cannot be read"),
    ],
)
def test_a_damaged_model_is_named_and_what_to_delete(cache, harm, said):
    harm(cache)
    wrong = [f for f in doctor.check_cache() if f.state == "broken"]
    assert len(wrong) == 1 and "models--me--tiny is damaged" in wrong[0].what and said in wrong[0].what
    assert wrong[0].todo == f"delete {cache}; it is fetched again when it is next asked for"


def test_a_cache_that_cannot_be_written(cache, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    if os.name != "nt" and os.geteuid():
        (cache.parent).chmod(0o555)
    else:
        monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)  # root may write anywhere
    wrong = [f for f in doctor.check_cache() if f.state == "broken"]
    (cache.parent).chmod(0o755)
    assert "cannot be written (Permission denied)" in wrong[0].what
    assert wrong[0].todo == "set HF_HOME to a folder that you may write to"


def test_a_file_in_place_of_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    found = [*doctor.check_cache()]
    assert [f.state for f in found] == ["broken"] and "is a file, not a folder" in found[0].what


def test_the_hub_s_own_variables_say_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    assert doctor.cache_folder() == tmp_path / "home" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert doctor.cache_folder() == tmp_path / "cache"


# --- the network --------------------------------------------------------------------------------------------

QUIET = [n for name in doctor.PROXIES for n in (name, name.upper())] + [*doctor.CERTIFICATES]
QUIET += ["HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]


@pytest.mark.parametrize(
    "name, value, state, said",
    [
        ("HF_HUB_OFFLINE", "1", "note", "unset HF_HUB_OFFLINE"),
        ("TRANSFORMERS_OFFLINE", "yes", "note", "unset TRANSFORMERS_OFFLINE"),
        ("HF_HUB_OFFLINE", "0", "ok", ""),
        ("HF_ENDPOINT", "hf-mirror.com", "broken", "write it with https://"),
        ("HF_ENDPOINT", "https://hf-mirror.com", "ok", ""),
        ("HTTPS_PROXY", "proxy:3128", "broken", "write https_proxy=http://host:port"),
        ("https_proxy", "http://proxy:3128", "ok", ""),
        ("ALL_PROXY", "socks4://proxy:1080", "broken", "write all_proxy=http://host:port"),
        ("SSL_CERT_FILE", "/no/such/file.pem", "broken", "unset SSL_CERT_FILE"),
        ("REQUESTS_CA_BUNDLE", "/no/such/file.pem", "broken", "unset REQUESTS_CA_BUNDLE"),
    ],
)
def test_a_variable_that_leads_to_the_hub(monkeypatch, name, value, state, said):
    for other in QUIET:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    found = [*doctor.check_network()]
    assert {f.state for f in found} - {"ok"} == {state} - {"ok"}
    assert said in " ".join(f.todo for f in found)


def test_a_proxy_s_password_is_not_shown(monkeypatch):
    for value in ("http://me:secret@proxy:3128", "me:secret@proxy:3128", "ftp://me:secret@proxy"):
        finding = doctor.check_proxy("https_proxy", value)
        assert "secret" not in " ".join(finding) and "proxy" in finding.what


def test_socks_needs_a_package(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert doctor.check_proxy("all_proxy", "socks5://proxy:1080").todo == "pip install socksio"


# --- the front end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, state, said",
    [
        ([sys.executable, "-m", "ipykernel_launcher"], "ok", "starts this Python"),
        (["python", "-m", "ipykernel_launcher"], "ok", "starts this Python"),
        (
            ["/old/venv/bin/python", "-m", "ipykernel_launcher"],
            "broken",
            "'/old/venv/bin/python', which is not there",
        ),
        (["/bin/sh", "-c", "exit"], "note", "another Python, /bin/sh"),
        (None, "broken", "cannot be read"),
    ],
)
def test_a_kernel_of_the_user_that_wins_over_ours(tmp_path, argv, state, said, site):
    folder = tmp_path / "data" / "kernels" / "python3"
    folder.mkdir(parents=True)
    text = (
        "{" if argv is None else json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"})
    )
    (folder / "kernel.json").write_text(text)
    found = site("check_kernel", JUPYTER_PATH=str(tmp_path / "data"))
    assert [f.state for f in found] == [state] and said in found[0].what
    assert (state == "ok") != bool(found[0].todo)


def test_no_kernel_at_all(monkeypatch):
    from jupyter_client import kernelspec

    def nothing(self, name):
        raise kernelspec.NoSuchKernel(name)

    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", nothing)
    assert [f.todo for f in doctor.check_kernel()] == ["pip install ipykernel"]


def test_no_browser(monkeypatch):
    monkeypatch.delenv("BROWSER", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    found = [*doctor.check_browser()]
    assert [f.state for f in found] == ["note"] and "open it in a browser" in found[0].todo


# --- the whole ----------------------------------------------------------------------------------------------


def test_a_check_that_fails_does_not_hide_the_others(monkeypatch, capsys):
    def failing():
        yield doctor.Finding("broken", "something", "mend it")
        raise RuntimeError("no idea")

    monkeypatch.setattr(doctor, "CHECKS", (failing, doctor.check_python))
    found = doctor.diagnose()
    assert [f.state for f in found] == ["broken", "note", "ok"] and "no idea" in found[1].what
    assert doctor.report() == 1
    out = capsys.readouterr().out
    assert out.index("ok  ") < out.index("note  ") < out.index("broken  something\n        → mend it")


def test_whatever_is_amiss_says_what_to_do():
    assert all(bool(f.todo) == (f.state != "ok") for f in doctor.diagnose())


def test_the_doctor_s_own_process_imports_nothing_that_may_be_broken():
    heavy = "{'torch', 'numpy', 'anywidget'}"
    code = (
        f"import sys; from llmlab.course.doctor import diagnose; diagnose(); print(*{heavy} & "
        f"set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
