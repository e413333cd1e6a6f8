"""``scan``: what code asks for, told without running it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from weightstore.catalog.registry import Catalogs
from weightstore.interop.scan.scanning import scan


def by_convention(names):
    """Stand in for timm on a machine that has it not, without starting a process for each test."""
    return {name: (f"hf://timm/{name}@main/model.safetensors", "") for name in names}


@pytest.fixture
def found(tmp_path):
    """Scan some code; return a line for each finding: its line, and its target or ``?`` and the note."""

    def find(code: str, *, timm=by_convention, catalogs: Catalogs | None = None) -> list[str]:
        path = tmp_path / "code.py"
        path.write_text(textwrap.dedent(code))
        result = scan([path], catalogs=catalogs or Catalogs(), timm=timm)
        assert not result.unread
        return [f"{one.place.line} {one.target or '? ' + one.note}" for one in result.findings]

    return find


def lines(*expected: str) -> list[str]:
    return list(expected)


ONE_OF_MANY = "which function of torchvision.models it calls is only known when it runs"
UNREADABLE = "no way to read ftp sources; known schemes: https, http, file, hf, oci, s3, gs, az"
V1, V2 = "torchvision/ResNet50_Weights.IMAGENET1K_V1", "torchvision/ResNet50_Weights.IMAGENET1K_V2"


# -- members of enums ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "from torchvision.models import ResNet50_Weights\nw = ResNet50_Weights.IMAGENET1K_V2",
        "from torchvision.models import ResNet50_Weights as W\nw = W.DEFAULT",
        "from torchvision.models.resnet import ResNet50_Weights\nw = ResNet50_Weights['IMAGENET1K_V2']",
        "import torchvision.models as M\nw = M.ResNet50_Weights.DEFAULT.transforms()",
        "import torchvision\nw = torchvision.models.ResNet50_Weights.DEFAULT.url",
        "from torchvision.models import *\nw = ResNet50_Weights.DEFAULT",
        "import torchvision.models as M\nw = M.get_model_weights('resnet50').DEFAULT",
        "from weightstore import torchvision\nw = torchvision.ResNet50_Weights.DEFAULT",
        "from weightstore.torchvision import ResNet50_Weights\nw = ResNet50_Weights.IMAGENET1K_V2",
        "from torchvision import models\nw = models.get_weight('ResNet50_Weights.DEFAULT')",
        "import weightstore\nw = weightstore.get_weight('ResNet50_Weights.IMAGENET1K_V2')",
    ],
)
def test_a_member_of_an_enum_is_found_however_it_was_imported(found, code):
    assert found(code) == [f"2 {V2}"]


def test_a_member_that_is_handed_on_is_found_where_it_is_written_and_once(found):
    assert found(
        """
        from torchvision.models import resnet50, ResNet50_Weights
        weights = ResNet50_Weights.DEFAULT
        model = resnet50(weights=weights)
        model = resnet50(weights=ResNet50_Weights.verify(weights))
        """
    ) == [f"3 {V2}"]


def test_a_member_that_the_catalog_does_not_have_is_unresolved(found):
    (line,) = found("from torchvision.models import ResNet50_Weights as W\nW.IMAGENET1K_V9")
    assert line == "2 ? ResNet50_Weights in the catalog torchvision has no member IMAGENET1K_V9"


def test_another_packages_enum_of_the_same_name_is_not_torchvisions(found):
    (line,) = found("from torchgeo.models import ResNet50_Weights\nResNet50_Weights.DEFAULT")
    assert line == "2 ? no catalog knows ResNet50_Weights.DEFAULT of torchgeo.models"


@pytest.mark.parametrize(
    "code",
    [
        "from torchvision.models import ResNet50_Weights\nlist(ResNet50_Weights.__members__)",
        "class ResNet50_Weights: DEFAULT = 1\nResNet50_Weights.DEFAULT",
        "ResNet50_Weights.DEFAULT",
        "from mine import Loss\nLoss.WEIGHTS",
        "from torchvision.models import ResNet50_Weights\nResNet50_Weights = something()\nResNet50_Weights.DEFAULT",
    ],
)
def test_what_is_no_member_of_an_imported_enum_is_not_found(found, code):
    assert found(code) == []


# -- builders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "target"),
    [
        ("models.resnet50(weights='DEFAULT')", V2),
        ("models.resnet50(weights='IMAGENET1K_V1')", V1),
        ("models.resnet50(weights='ResNet50_Weights.IMAGENET1K_V1')", V1),
        ("models.resnet50('DEFAULT')", V2),
        ("models.resnet.resnet50(weights='DEFAULT')", V2),
        ("models.resnet50(pretrained=True)", V1),
        ("models.resnet50(True)", V1),
        ("models.resnet50(**{'pretrained': True})", V1),
        ("models.efficientnet_b1(pretrained=True)", "torchvision/EfficientNet_B1_Weights.IMAGENET1K_V1"),
        ("getattr(models, 'resnet50')(weights='DEFAULT')", V2),
        ("models.__dict__['resnet50'](weights='DEFAULT')", V2),
        ("partial(models.resnet50, weights='DEFAULT')", V2),
        ("models.get_model('resnet50', weights='DEFAULT')", V2),
        ("models.get_model('ResNet50', weights='DEFAULT')", V2),
        ("models.get_model(name='resnet50', pretrained=True)", V1),
        (
            "models.quantization.resnet50(pretrained=True, quantize=True)",
            "torchvision/ResNet50_QuantizedWeights.IMAGENET1K_FBGEMM_V1",
        ),
        (
            "models.quantization.resnet50(weights='DEFAULT', quantize=True)",
            "torchvision/ResNet50_QuantizedWeights.IMAGENET1K_FBGEMM_V2",
        ),
        ("models.quantization.resnet50(pretrained=True)", V1),
        ("models.quantization.resnet50(weights='DEFAULT')", V2),
        ("models.detection.keypointrcnn_resnet50_fpn(pretrained='legacy')",
         "torchvision/KeypointRCNN_ResNet50_FPN_Weights.COCO_LEGACY"),
        ("models.video.r3d_18(weights='DEFAULT')", "torchvision/R3D_18_Weights.KINETICS400_V1"),
    ],
)  # fmt: skip
def test_a_builder_gets_what_torchvision_makes_of_its_arguments(found, call, target):
    assert found(f"from torchvision import models; from functools import partial\n{call}") == [f"2 {target}"]


@pytest.mark.parametrize(
    "call",
    [
        "models.resnet50()",
        "models.resnet50(weights=None)",
        "models.resnet50(pretrained=False)",
        "models.resnet50(False)",
        "models.list_models()",
        "models.ResNet(pretrained=True)",
        "models.__dict__[arch]()",
        "getattr(models, arch)(weights=None)",
        "getattr(mymodels, arch)(pretrained=True)",
        "models.get_model('resnet50')",
        "models.detection.fasterrcnn_resnet50_fpn_v2()",
        "models.detection.fasterrcnn_resnet50_fpn(weights_backbone=None)",
        "models.segmentation.fcn_resnet50(pretrained=False, pretrained_backbone=False)",
        "mymodels.resnet50(pretrained=True)",
    ],
)
def test_a_builder_without_weights_asks_for_none(found, call):
    assert found(f"from torchvision import models\nfrom mine import mymodels\n{call}") == []


def test_what_a_builder_has_no_weights_for_is_said(found):
    assert found("from torchvision.models import vit_h_14\nvit_h_14(pretrained=True)") == [
        "2 ? vit_h_14 has no weights for pretrained=True"
    ]
    assert found("from torchvision.models import resnet50\nresnet50(weights='V9')") == [
        "2 ? ResNet50_Weights has no member V9"
    ]


@pytest.mark.parametrize(
    ("call", "targets"),
    [
        ("detection.fasterrcnn_resnet50_fpn()", [V1]),
        ("detection.fasterrcnn_resnet50_fpn(weights=None, num_classes=2)", [V1]),
        ("detection.fasterrcnn_resnet50_fpn(pretrained=False)", [V1]),
        ("detection.fcos_resnet50_fpn(weights='DEFAULT')", ["torchvision/FCOS_ResNet50_FPN_Weights.COCO_V1"]),
        ("detection.fasterrcnn_resnet50_fpn(weights_backbone='DEFAULT')", [V2]),
        ("detection.fasterrcnn_resnet50_fpn(None, True, 91, 'DEFAULT')", [V2]),
        ("detection.fasterrcnn_resnet50_fpn_v2(pretrained_backbone=True)", [V1]),
        ("detection.ssd300_vgg16()", ["torchvision/VGG16_Weights.IMAGENET1K_FEATURES"]),
        ("segmentation.deeplabv3_resnet101()", ["torchvision/ResNet101_Weights.IMAGENET1K_V1"]),
        ("segmentation.fcn_resnet50(None, True, 21, None, 'DEFAULT')", [V2]),
        ("segmentation.lraspp_mobilenet_v3_large(None, True, 21, 'DEFAULT')",
         ["torchvision/MobileNet_V3_Large_Weights.IMAGENET1K_V2"]),
        ("get_model('fcn_resnet50', weights=None)", [V1]),
    ],
)  # fmt: skip
def test_the_backbone_that_nobody_named_is_found(found, call, targets):
    assert found(f"import torchvision\ntorchvision.models.{call}") == [f"2 {one}" for one in targets]


def test_every_builder_of_torchvision_has_the_backbone_that_it_is_said_to_have(found):
    inspect = pytest.importorskip("inspect")
    api = pytest.importorskip("torchvision.models._api")
    pytest.importorskip("torchvision.models")
    for name, builder in api.BUILTIN_MODELS.items():
        parameters = inspect.signature(builder).parameters
        default = parameters["weights_backbone"].default if "weights_backbone" in parameters else None
        expected = [] if default is None else [f"2 torchvision/{default}"]
        assert found(f"import torchvision\ntorchvision.models.get_model('{name}')") == expected, name


def test_every_positional_parameter_for_a_backbone_is_where_torchvision_has_it(found):
    inspect = pytest.importorskip("inspect")
    api = pytest.importorskip("torchvision.models._api")
    pytest.importorskip("torchvision.models")
    for name, builder in api.BUILTIN_MODELS.items():
        order = list(inspect.signature(builder).parameters)
        if "weights_backbone" not in order:
            continue
        values = ["None"] * order.index("weights_backbone") + ["False"]
        assert found(f"from {builder.__module__} import {name}\n{name}({', '.join(values)})") == [], name


# -- a catalog of one's own -----------------------------------------------------------------------------------------


def test_enums_and_builders_of_other_catalogs_are_known(found, tmp_path):
    (tmp_path / "catalog.json").write_text(
        """{"schema": 1, "namespace": "toys", "enums": {"Small_Weights": {"builder": "small", "default": "B",
        "entries": {"A": {"source": "https://x.org/a.pth"}, "B": {"source": "https://x.org/b.pth"}}}}}"""
    )
    catalogs = Catalogs([tmp_path / "catalog.json"])
    code = """
        from toys.models import Small_Weights, small
        from elsewhere import Small_Weights as Again
        import weightstore
        Small_Weights.A
        small(weights="DEFAULT")
        Again.B
        weightstore.get_model("small", weights="A")
        weightstore.path("toys/small")
        """
    a, b = "toys/Small_Weights.A", "toys/Small_Weights.B"
    assert found(code, catalogs=catalogs) == [f"5 {a}", f"6 {b}", f"7 {b}", f"8 {a}", f"9 {b}"]


# -- other libraries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "target"),
    [
        ("import weightstore\nweightstore.path('resnet50')", V2),
        ("from weightstore import load_state_dict\nload_state_dict('https://x.org/a.pth')", "https://x.org/a.pth"),
        ("import timm\ntimm.create_model('a.b', pretrained=True)", "hf://timm/a.b@main/model.safetensors"),
        ("import timm\ntimm.create_model('a.b', True)", "hf://timm/a.b@main/model.safetensors"),
        ("import timm\ntimm.create_model('hf-hub:org/x', pretrained=True)", "hf://org/x@main/model.safetensors"),
        ("import timm\ntimm.create_model('hf_hub:org/x@v1', pretrained=True)", "hf://org/x@v1/model.safetensors"),
        ("from timm.models import create_model as c\nc('a.b', pretrained=1)", "hf://timm/a.b@main/model.safetensors"),
        ("import timm\ntimm.models.resnet18(pretrained=True)", "hf://timm/resnet18@main/model.safetensors"),
        ("from huggingface_hub import hf_hub_download as h\nh('o/n', 'm.bin')", "hf://o/n@main/m.bin"),
        (
            "from huggingface_hub import *\nhf_hub_download(filename='m', repo_id='o/n', subfolder='s', revision='v')",
            "hf://o/n@v/s/m",
        ),
        ("import huggingface_hub as h\nh.hf_hub_download('gpt2', 'm.bin', revision=None)", "hf://gpt2@main/m.bin"),
        ("import torch\ntorch.hub.load_state_dict_from_url('https://x.org/y')", "https://x.org/y"),
        ("from torch.hub import download_url_to_file as d\nd(url='https://x.org/y', dst='z')", "https://x.org/y"),
        ("import torch.utils.model_zoo as zoo\nzoo.load_url('https://x.org/y')", "https://x.org/y"),
        ("import urllib.request\nurllib.request.urlretrieve('https://x.org/a.ckpt', 'a')", "https://x.org/a.ckpt"),
    ],
)
def test_a_librarys_own_way_of_fetching_is_known(found, code, target):
    assert found(code) == [f"2 {target}"]


def test_torchvisions_models_by_torch_hub_have_their_weights_found_and_their_code_not(found):
    call = "torch.hub.load('pytorch/vision:v0.10.0', 'resnet50', pretrained=True)"
    code = "2 ? the code of pytorch/vision:v0.10.0 decides what it fetches"
    assert found(f"import torch\n{call}") == [f"2 {V1}", code]


def test_get_model_takes_a_url_for_its_weights(found):
    code = "import weightstore\nweightstore.get_model('resnet50', weights='https://x.org/y')"
    assert found(code) == ["2 https://x.org/y"]
    assert found("import weightstore\nweightstore.get_model('resnet50', weights='./mine.pth')") == []


def test_prefetch_asks_for_each_of_its_names(found):
    got = found("import weightstore\nweightstore.prefetch('resnet50', 'https://x.org/a.pth', 'nonsense')")
    assert got[:2] == [f"2 {V2}", "2 https://x.org/a.pth"]
    assert got[2].startswith("2 ? no catalog knows 'nonsense'")


@pytest.mark.parametrize(
    "call",
    [
        "timm.create_model('a.b')",
        "timm.create_model('a.b', pretrained=False)",
        "timm.create_model('local-dir:/x', pretrained=True)",
        "timm.list_models('*', pretrained=True)",
        "huggingface_hub.hf_hub_download('o/n', 'x.csv', repo_type='dataset')",
        "huggingface_hub.snapshot_download('o/n', repo_type='space')",
        "transformers.AutoModel.from_pretrained('./mine')",
        "torch.hub.load('./mine', 'net', source='local')",
        "urllib.request.urlretrieve('https://x.org/data.zip', 'a')",
        "urllib.request.urlretrieve(anything, 'a')",
    ],
)
def test_what_fetches_no_weights_is_not_found(found, call):
    assert found(f"import huggingface_hub, timm, torch, transformers, urllib.request\n{call}") == []


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("huggingface_hub.snapshot_download('o/n')", "which files of o/n it fetches is only known when it runs"),
        ("transformers.AutoModel.from_pretrained('o/n')", "which files of o/n it fetches is only known when it runs"),
        ("transformers.AutoModel.from_pretrained(name)", "which files it fetches is only known when it runs"),
        ("transformers.pipeline('task', model='o/n')", "which files of o/n it fetches is only known when it runs"),
        ("torch.hub.load('o/n', 'net')", "the code of o/n decides what it fetches"),
        ("timm.create_model('a', pretrained=True, pretrained_cfg=cfg)", "pretrained_cfg says where its weights are"),
        ("timm.create_model('a', pretrained=flag)", "pretrained: only known when it runs"),
        ("timm.create_model(**options)", "pretrained may be among the arguments that are passed on"),
        ("torchvision.models.resnet50(**options)", "weights may be among the arguments that are passed on"),
        ("torchvision.models.get_model(name, weights='DEFAULT')", "only known when it runs"),
        ("torchvision.models.__dict__[arch](pretrained=True)", ONE_OF_MANY),
        ("getattr(torchvision.models, arch)(weights='DEFAULT')", ONE_OF_MANY),
        ("torchvision.models.vgg11(weights=getattr(torchvision.models.VGG11_Weights, x))", "only known when it runs"),
        ("torch.hub.load_state_dict_from_url(url)", "only known when it runs"),
        ("torch.hub.load_state_dict_from_url('ftp://x.org/y')", UNREADABLE),
        ("huggingface_hub.hf_hub_download('o/n', name)", "only known when it runs"),
        ("huggingface_hub.hf_hub_download('../n', 'x')", "not a repository's name: '../n'"),
    ],
)  # fmt: skip
def test_what_only_a_run_can_tell_is_unresolved_and_says_why(found, call, why):
    assert found(f"import huggingface_hub, timm, torch, torchvision, transformers\n{call}") == [f"2 ? {why}"]


def test_timms_word_counts_and_is_asked_for_once(found):
    asked: list[list[str]] = []

    def timm(names):
        asked.append(list(names))
        return {"a": ("hf://org/x@main/open.bin", ""), "b": ("", "timm has no weights for it")}

    code = "import timm\nfor n in 'a', 'b', 'a':\n    timm.create_model(n, pretrained=True)"
    assert found(code, timm=timm) == ["3 hf://org/x@main/open.bin", "3 ? timm has no weights for it"]
    assert asked == [["a", "b"]]


# -- URLs -----------------------------------------------------------------------------------------------------------


def test_a_string_that_is_the_url_of_a_checkpoint_is_found_and_a_mention_is_not(found):
    assert found(
        '''
        """See https://x.org/docstring.pth"""
        # https://x.org/comment.pth
        A = "https://x.org/a.pth"
        B = {"b": "https://x.org/b.pth.tar", "c": ["http://x.org/c.safetensors?download=true"]}
        C = "hf://org/name@main/model.safetensors"
        D = "https://x.org/data.zip", "https://x.org/", "x.pth", "ftp://x.org/a.pth"
        raise ValueError("fetch https://x.org/message.pth first")
        "https://x.org/comment-in-a-string.pth"
        def f():
            """https://x.org/docstring.pth"""
        '''
    ) == lines(
        "4 https://x.org/a.pth",
        "5 https://x.org/b.pth.tar",
        "5 http://x.org/c.safetensors?download=true",
        "6 hf://org/name@main/model.safetensors",
    )


def test_a_url_that_is_put_together_is_found_whole(found):
    assert found(
        """
        BASE = "https://x.org"
        SIZE = 50
        A = f"{BASE}/net{SIZE}.pth"
        B = BASE + "/net.pth"
        C = f"https://x.org/{unknown}.pth"
        D = "https://x.org/" + unknown + ".pth"
        """
    ) == lines(
        "4 https://x.org/net50.pth",
        "5 https://x.org/net.pth",
        "6 ? a part of this URL is only known when it runs",
        "7 ? a part of this URL is only known when it runs",
    )


def test_a_url_that_a_call_is_given_is_the_calls_finding_alone(found):
    code = """
        from torch.hub import load_state_dict_from_url
        URLS = {"a": "https://x.org/a.pth", "b": "https://x.org/b.pth"}
        load_state_dict_from_url(URLS["a"])
        load_state_dict_from_url(f"https://x.org/{unknown}.pth")
        """
    assert found(code) == ["3 https://x.org/b.pth", "4 https://x.org/a.pth", "5 ? only known when it runs"]


def test_credentials_in_a_url_are_not_shown(tmp_path):
    (tmp_path / "code.py").write_text(
        "import torch\n"
        "A = 'https://ada:secret@x.org/a.pth?token=secret'\n"
        "torch.hub.load_state_dict_from_url('https://ada:secret@x.org/b.pth')\n"
        "torch.hub.load_state_dict_from_url(f'https://ada:secret@{host}/b.pth')\n"
        "torch.hub.load_state_dict_from_url('ftp://ada:secret@x.org/b.pth', dst='https://[secret')\n"
    )
    result = scan([tmp_path / "code.py"], catalogs=Catalogs(), timm=by_convention)
    assert len(result.findings) == 4
    assert "secret" not in repr(result)
    assert result.findings[0].what == "'https://x.org/a.pth?token=~2bb80d53'"
    assert result.findings[1].target == "https://x.org/b.pth"


# -- following values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "NAME = 'a.b'\ntimm.create_model(NAME, pretrained=True)",
        "NAME: str = 'a.b'\ntimm.create_model(NAME, pretrained=True)",
        "NAME = 'a'\nNAME += '.b'\ntimm.create_model(NAME, pretrained=True)",
        "A, B = 'a', 'b'\ntimm.create_model(f'{A}.{B!s}', pretrained=True)",
        "class CFG:\n    name = 'a.b'\ntimm.create_model(CFG.name, pretrained=True)",
        "cfg = {'m': {'name': 'a.b'}}\ntimm.create_model(cfg['m']['name'], pretrained=True)",
        "cfg = dict(name='a.b')\ntimm.create_model(cfg['name'], pretrained=True)",
        "from types import SimpleNamespace as S\ncfg = S(name='a.b')\ntimm.create_model(cfg.name, pretrained=True)",
        "class C:\n    name = 'a.b'\nc = C()\ntimm.create_model(c.name, pretrained=True)",
        "class C:\n    name = 'c.d'\nc = C(name='a.b')\ntimm.create_model(c.name, pretrained=True)",
        "NAMES = {'s': 'a.b'}\ntimm.create_model(NAMES[size], pretrained=True)",
        "NAMES = ['x', 'a.b']\ntimm.create_model(NAMES[-1], pretrained=True)",
        "cfg = {}\ncfg['name'] = 'a.b'\ntimm.create_model(cfg['name'], pretrained=True)",
        "OPTIONS = {'pretrained': True}\ntimm.create_model('a.b', **OPTIONS)",
        "[timm.create_model(n, pretrained=True) for n in ['a.b']]",
        "for _, (n, p) in enumerate([('a.b', True)]):\n    timm.create_model(n, pretrained=p)",
        "for n in {'a.b': 1}:\n    timm.create_model(n, pretrained=True)",
        "for n, flag in {'a.b': True}.items():\n    timm.create_model(n, pretrained=flag)",
        "if (n := 'a.b'):\n    timm.create_model(n, pretrained=True)",
        "f = lambda: timm.create_model('a.b', pretrained=True)",
        "create = timm.create_model\ncreate('a.b', pretrained=True)",
        "def f(n):\n    timm.create_model(n, pretrained=True)\nf('a.b')",
        "def f(n, *, p=True):\n    timm.create_model(n, pretrained=p)\ndef main():\n    f(n='a.b')",
        "def f(n='a.b'):\n    timm.create_model(n, pretrained=True)",
        "class M:\n    def __init__(self, n):\n        timm.create_model(n, pretrained=True)\nM('a.b')",
        "class M:\n    def go(self): timm.create_model(self.n, True)\n    def __init__(self):\n        self.n = 'a.b'",
        "class M:\n    n = 'a.b'\n    def go(self):\n        timm.create_model(self.n, pretrained=True)",
        "def f():\n    timm.create_model(NAME, pretrained=True)\nNAME = 'a.b'",
        "match x:\n    case 1:\n        timm.create_model('a.b', pretrained=True)",
        "try:\n    import timm as t\nexcept ImportError:\n    t = None\nt.create_model('a.b', pretrained=True)",
        "with open('x') as f, timm.create_model('a.b', pretrained=True):\n    pass",
        "async def f():\n    await g(timm.create_model('a.b', pretrained=True))",
        "@decorated(timm.create_model('a.b', pretrained=True))\ndef f(): pass",
        "def f(m=timm.create_model('a.b', pretrained=True)): pass",
    ],
)  # fmt: skip
def test_values_are_followed_through_simple_code(found, code):
    targets = [line.partition(" ")[2] for line in found(f"import timm\n{code}\n")]
    assert targets == ["hf://timm/a.b@main/model.safetensors"]


def test_each_branch_counts_and_what_is_overwritten_does_not(found):
    assert found(
        """
        import timm
        name = "never.used"
        name = "a.a"
        if x:
            name = "b.b"
        elif y:
            raise SystemExit
        else:
            name = "c.c"
        timm.create_model(name, pretrained=True)
        name = "d.d" if x else "e.e"
        timm.create_model(name, pretrained=x or True)
        """
    ) == [f"{line} hf://timm/{name}@main/model.safetensors" for line, name in ((11, "b.b"), (11, "c.c"))] + [
        f"13 hf://timm/{name}@main/model.safetensors" for name in ("d.d", "e.e")
    ]


def test_what_one_round_of_a_loop_leaves_behind_is_there_in_the_next(found):
    assert found(
        """
        import timm
        name = "a.a"
        while x:
            timm.create_model(name, pretrained=True)
            name = "b.b"
        """
    ) == [f"5 hf://timm/{name}@main/model.safetensors" for name in ("b.b", "a.a")]


def test_a_parameter_is_what_callers_give_and_said_to_be_one_where_none_is_seen(found):
    assert found(
        """
        import timm
        def seen(name, pretrained=True):
            timm.create_model(name, pretrained=pretrained)
        def default(name="c.c"):
            timm.create_model(name, pretrained=True)
        def bare(name):
            timm.create_model(name, pretrained=True)
        def main(args):
            seen("a.a")
            seen(args.name)
        """
    ) == lines(
        "4 hf://timm/a.a@main/model.safetensors",
        "4 ? args is a parameter of main()",
        "6 hf://timm/c.c@main/model.safetensors",
        "8 ? name is a parameter of bare()",
    )


def test_a_default_says_that_callers_may_give_another(tmp_path):
    (tmp_path / "code.py").write_text("import timm\ndef f(n='a.b'):\n    timm.create_model(n, pretrained=True)\n")
    (finding,) = scan([tmp_path / "code.py"], catalogs=Catalogs(), timm=by_convention).findings
    assert finding.note == "or another: n is a parameter of f(), 'a.b' by default"
    assert finding.what == "timm.create_model(n, pretrained=True)"
    assert finding.asked_by == "timm"


def test_relative_imports_lead_into_the_package(tmp_path):
    package = tmp_path / "torchvision" / "models" / "mine"
    package.mkdir(parents=True)
    for directory in (package, package.parent, package.parent.parent):
        (directory / "__init__.py").touch()
    (package / "net.py").write_text("from ..resnet import ResNet50_Weights as W\nfrom . import x\nW.DEFAULT\n")
    (finding,) = scan([package / "net.py"], catalogs=Catalogs(), timm=by_convention).findings
    assert (finding.place.line, finding.target) == (3, V2)


@pytest.fixture
def project(tmp_path):
    """Scan several files; return a line for each finding."""

    def find(**files: str) -> list[str]:
        for name, code in files.items():
            path = tmp_path / name.replace("__", "/").replace("INIT", "__init__")
            path.with_suffix(".py").parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".py").write_text(textwrap.dedent(code))
        result = scan([tmp_path], catalogs=Catalogs(), timm=by_convention)
        assert not result.unread
        return [
            f"{Path(one.place.file).stem}:{one.place.line} {one.target or '? ' + one.note}" for one in result.findings
        ]

    return find


CONFIG = "class CFG:\n    name = 'a.b'\nNAME = 'a.b'\nTABLE = {'name': 'a.b'}\ndef name(): pass\n"


@pytest.mark.parametrize(
    "code",
    [
        "from config import CFG\ntimm.create_model(CFG.name, pretrained=True)",
        "from config import NAME as n\ntimm.create_model(n, pretrained=True)",
        "from config import *\ntimm.create_model(TABLE['name'], pretrained=True)",
        "import config\ntimm.create_model(config.CFG.name, pretrained=True)",
        "from src import config as c\ntimm.create_model(c.NAME, pretrained=True)",
        "import src.config\ntimm.create_model(src.config.NAME, pretrained=True)",
        "def f():\n    from src.config import NAME\n    timm.create_model(NAME, pretrained=True)",
    ],
)
def test_settings_of_another_file_that_is_scanned_are_known(project, code):
    targets = [line.partition(" ")[2] for line in project(src__config=CONFIG, train=f"import timm\n{code}\n")]
    assert targets == ["hf://timm/a.b@main/model.safetensors"]


def test_relative_imports_lead_to_the_other_files_of_a_package(project):
    train = "import timm\nfrom ..config import NAME\nfrom . import more\ntimm.create_model(NAME, True)\n"
    assert project(
        pkg__INIT="", pkg__config=CONFIG, pkg__sub__INIT="", pkg__sub__more="NAME = 'c.d'\n",
        pkg__sub__train=train + "timm.create_model(more.NAME, True)\n",
    ) == ["train:4 hf://timm/a.b@main/model.safetensors", "train:5 hf://timm/c.d@main/model.safetensors"]  # fmt: skip


def test_which_of_two_files_of_one_name_is_meant_is_not_guessed(project):
    train = "import timm\nfrom config import NAME\ntimm.create_model(NAME, True)\n"
    assert project(one__config=CONFIG, two__config=CONFIG, train=train) == [
        "train:3 ? config.NAME is defined elsewhere"
    ]


def test_what_another_file_only_knows_when_it_runs_is_unresolved(project):
    train = "import timm, config\ntimm.create_model(config.NAME, True)\ntimm.create_model(config.name, True)\n"
    assert project(config="NAME = input()\ndef name(): pass\n", train=train) == [
        "train:2 ? config.NAME is defined elsewhere", "train:3 ? config.name is defined elsewhere",
    ]  # fmt: skip


def test_an_enum_of_ones_own_is_found_where_its_urls_are(project):
    nets = """
        from torchvision.models import WeightsEnum, Weights, resnet50
        class Net_Weights(WeightsEnum):
            V1 = Weights(url="https://x.org/v1.pth", transforms=None, meta={})
        """
    train = "from nets import Net_Weights, resnet50\nresnet50(weights=Net_Weights.V1)\nresnet50(pretrained=True)\n"
    assert project(nets=nets, train=train) == ["nets:4 https://x.org/v1.pth", f"train:3 {V1}"]
    assert project(nets="", train=train)[0] == "train:2 ? no catalog knows Net_Weights.V1 of nets"


def test_nothing_that_is_scanned_runs(tmp_path):
    trap = tmp_path / "trap"
    code = (
        f"from pathlib import Path\nPath({str(trap)!r}).touch()\nimport timm\ntimm.create_model('a', pretrained=True)\n"
    )
    for name in ("code.py", "timm.py", "torch.py", "conftest.py", "sitecustomize.py"):
        (tmp_path / name).write_text(code)
    scan([tmp_path], catalogs=Catalogs(), timm=by_convention)
    assert not trap.exists()


def test_places_are_in_order_and_targets_once(tmp_path: Path):
    (tmp_path / "b.py").write_text("import timm\ntimm.create_model('x.x', True)\n")
    (tmp_path / "a.py").write_text(
        "def f():\n    timm.create_model('x.x', True)\nimport timm\ntimm.create_model('y.y', True)"
    )
    result = scan([tmp_path], catalogs=Catalogs(), timm=by_convention)
    assert [(Path(one.place.file).name, one.place.line) for one in result.findings] == [
        ("a.py", 2),
        ("a.py", 4),
        ("b.py", 2),
    ]
    assert result.targets == [f"hf://timm/{name}@main/model.safetensors" for name in ("x.x", "y.y")]
