"""Layouts that tools and well-known datasets have, for the tests of layouts."""

import json

SIX = [f"{number}.jpg" for number in range(6)]
PETS = ("cat", "dog")


def images(*names):
    return dict.fromkeys(names)


def flat(folder):
    return {f"{folder}/{name}": None for name in SIX}


def pet(number):
    return PETS[number > 2]


def coco(first=0):
    return json.dumps(
        {
            "images": [{"id": n, "file_name": f"{first + n}.jpg"} for n in range(6)],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [{"image_id": n, "category_id": 1 + (n > 2)} for n in range(6)],
        }
    )


def lines(form, numbers=range(6)):
    return "".join(form.format(n=n, pet=pet(n), i=1 + (n > 2)) + "\n" for n in numbers)


STUDIO = [
    {
        "data": {"image": f"/data/upload/1/ab12-{n}.jpg"},
        "annotations": [{"result": [{"type": "choices", "value": {"choices": [pet(n)]}}]}],
    }
    for n in range(6)
]

TOOLS = {
    "COCO": (
        {
            **flat("train2017"),
            **{f"val2017/9{name}": None for name in SIX},
            "annotations/instances_train2017.json": coco(),
            "annotations/captions_train2017.json": '{"images": [], "annotations": []}',
            "annotations/instances_val2017.json": coco(90),
        },
        {},
        "cat dog",
        6,
        "of split 'train', and not 'val2017', from annotations/instances_train2017.json; COCO annotations",
    ),
    "JSON of labels": (
        {**flat("images"), "labels.json": json.dumps({name: pet(n) for n, name in enumerate(SIX)})},
        {},
        "cat dog",
        6,
        "labels of the images from labels.json; labels by image",
    ),
    "Label Studio": (
        {**flat("images"), "export.json": json.dumps(STUDIO)},
        {},
        "cat dog",
        6,
        "from export.json; the choices of Label Studio as the labels",
    ),
    "Pascal VOC": (
        {
            **flat("VOC/JPEGImages"),
            **{f"VOC/SegmentationClass/{n}.png": None for n in range(6)},
            **{
                f"VOC/Annotations/{n}.xml": f"<annotation><filename>{n}.jpg</filename>"
                f"<object>\n<name>{pet(n)}</name><part><name>head</name></part></object></annotation>"
                for n in range(6)
            },
            "VOC/ImageSets/Main/cat_train.txt": "0 1\n5 -1\n",
        },
        {},
        "cat dog",
        6,
        "labels from Annotations/0.xml and 5 more",
    ),
    "CVAT": (
        {
            **flat("images"),
            "annotations.xml": "<annotations>"
            + lines('<image id="{n}" name="{n}.jpg" width="8"><tag label="{pet}"></tag></image>')
            + "</annotations>",
        },
        {},
        "cat dog",
        6,
        "labels from annotations.xml",
    ),
    "a list of images": (
        {
            **flat("images"),
            "annotations/trimaps/0.png": None,
            "annotations/list.txt": "#Image CLASS\n" + lines("{n} {i} 1 1"),
            "annotations/trainval.txt": lines("{n} {i} 1 1", (0, 1, 3, 4)),
            "annotations/test.txt": lines("{n} {i} 1 1", (2, 5)),
        },
        {},
        "1 2",
        4,
        "labels of the images from annotations/trainval.txt",
    ),
    "splits in longer names": (
        images(
            *(f"ILSVRC2012_img_train/n0{c}/*.JPEG" for c in (1, 2)),
            "ILSVRC2012_img_val/v*.JPEG",
        ),
        {},
        "n01 n02",
        6,
        "folders 'ILSVRC2012_img_train' as split train and 'ILSVRC2012_img_val' as split val",
    ),
    "one folder and a table": (
        {
            **flat("ISIC_Training_Input"),
            "ISIC_Training_GroundTruth.csv": [
                ["image", "MEL", "NV"],
                *([str(n), f"{int(n < 3)}.0", f"{int(n > 2)}.0"] for n in range(6)),
            ],
            "ISIC_Metadata.csv": [["image", "age", "site"], *([str(n), "50", "arm"] for n in range(6))],
        },
        {},
        "MEL NV",
        6,
        "labels of the images from ISIC_Training_GroundTruth.csv",
    ),
    "a column that is asked for": (
        {
            **images(*(f"train/p{n}/study1/v.jpg" for n in range(6))),
            "train.csv": [
                ["Path", "Sex", "Edema"],
                *([f"CheXpert/train/p{n}/study1/v.jpg", "F", ("0.0", "1.0")[n % 2]] for n in range(6)),
            ],
        },
        {"label_col": "Edema"},
        "0.0 1.0",
        6,
        "column 'Path' as the images and 'Edema' as the labels",
    ),
    "texts without a suffix": (
        {f"20news-bydate-{s}/{c}/5{n}": f"{c} {n}" for s in ("train", "test") for c in PETS for n in range(3)},
        {},
        "cat dog",
        6,
        "files without a suffix as texts",
    ),
    "texts without a class": (
        {
            **{f"aclImdb/{s}/{c}/{n}.txt": c for s in ("train", "test") for c in PETS for n in range(3)},
            **{f"aclImdb/train/unsup/{n}.txt": f"some {n}" for n in range(3)},
        },
        {},
        "cat dog",
        6,
        "train/unsup' as samples without a class, left out",
    ),
    "tables of texts": (
        {
            "train.tsv": "sentence\tlabel\n" + lines("a \"fine {n}\t{pet}"),
            "dev.tsv": "sentence\tlabel\n" + lines("some {n}\t{pet}"),
            "test.tsv": "index\tsentence\n1\tmore\n",
        },
        {},
        "cat dog",
        6,
        "table train.tsv, and not dev.tsv, test.tsv",
    ),
    "a class of no image": (
        {**images("cat/*.png", "dog/*.png"), "gone/*.png": "version https://git-lfs.github.com/spec/v1\n"},
        {"skip_bad": True},
        "cat dog",
        6,
        "classes but 'gone' (pointer of git LFS",
    ),
}  # fmt: skip
"""Files, options, classes, samples, and what is said, by the name of the layout on the page of data."""

LISTS = json.dumps([{"image": f"{n}.jpg", "choice": pet(n)} for n in range(6)])
REFUSED_TOOLS = {
    "lists of other things": (
        {**flat("images"), "a_train.txt": lines("{n} A {pet}"), "b_train.txt": lines("{n} {i}")},
        "a_train.txt and b_train.txt both say what the images show; give the one that is meant as the data",
    ),
    "partitions": (
        {**flat("images"), "list_eval_partition.txt": lines("{n}.jpg {i}")},
        "holds no class folders; expected images",
    ),
    "patients with a table": (
        {
            **images(*(f"train/p{n}/study1/v{m}.jpg" for n in range(3) for m in range(2))),
            "train.csv": [["Path", "Edema"], *([f"train/p{n}/study1/v0.jpg", str(n % 2)] for n in range(3))],
        },
        "or say by label_col= which column of train.csv holds the classes",
    ),
    "records": (
        {"train-00000-of-00001.tfrecord": "x", "dataset_info.json": "{}"},
        "train-00000-of-00001.tfrecord is a file of records that only its own library reads; give it in Python",
    ),
    "databases": ({"bedroom_train_lmdb/data.mdb": "x"}, "is a database, which is not read; write the images"),
    "pickles": (
        {"cifar/data_batch_1": b"\x80\x04", "cifar/readme.html": ""},
        "data_batch_1 is a Python pickle",
    ),
    "bytes": (
        {"stl10_binary/train_X.bin": "x"},
        "is bytes of which nothing says what they are; give it in Python",
    ),
    "labels of MATLAB": (
        {**flat("jpg"), "imagelabels.mat": "x"},
        "write them as a CSV with the columns path,label",
    ),
    "tables of texts": (
        {f"{name}/train.tsv": "sentence\tlabel\n" + lines("{n}\t{pet}") for name in ("SST", "CoLA")},
        "holds 2 tables of samples, CoLA/train.tsv and SST/train.tsv among them; give one of them as the data",
    ),
}
