"""Miniature trees of the data sets, in their real layouts."""

from pathlib import Path

MARKET1501 = (
    'bounding_box_train/0002_c1s1_000451_03.jpg',
    'bounding_box_train/0002_c2s1_000301_01.jpg',
    'bounding_box_train/0007_c3s3_077419_03.jpg',
    'bounding_box_train/Thumbs.db',
    'query/0001_c1s1_001051_00.jpg',
    'query/0003_c6s1_009376_00.jpg',
    'bounding_box_test/-1_c1s1_000401_03.jpg',
    'bounding_box_test/0000_c1s1_000151_01.jpg',
    'bounding_box_test/0001_c1s1_001051_03.jpg',
    'bounding_box_test/0001_c2s1_000976_01.jpg',
    'bounding_box_test/0003_c3s2_000001_02.jpg',
)
VERI776 = (
    'image_train/0001_c001_00016450_0.jpg',
    'image_train/0001_c016_00015860_0.jpg',
    'image_train/0776_c020_00080000_0.jpg',
    'image_query/0002_c002_00030600_0.jpg',
    'image_test/0002_c002_00030600_0.jpg',
    'image_test/0002_c003_00030605_1.jpg',
    'image_test/0005_c001_00030700_0.jpg',
    'name_query.txt',
)
MSMT17_LISTS = {
    'list_train.txt': '0000/0000_000_01_0303morning_0008_0.jpg 0\n0001/0001_001_15_0303noon_0010_1.jpg 1\n',
    'list_val.txt': '0001/0001_002_04_0303noon_0011_0.jpg 1\n',
    'list_query.txt': '0000/0000_000_05_0303morning_0022_0.jpg 0\n',
    'list_gallery.txt': '0000/0000_003_06_0303morning_0030_0.jpg 0\n0001/0001_000_05_0302evening_0001_0.jpg 1\n',
}
CUB200 = {
    'images.txt': (
        '1 001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111.jpg\n'
        '2 100.Brown_Pelican/Brown_Pelican_0001_93753.jpg\n'
        '3 101.White_Pelican/White_Pelican_0001_96422.jpg\n'
        '4 101.White_Pelican/White_Pelican_0002_96264.jpg\n'
        '5 200.Common_Yellowthroat/Common_Yellowthroat_0003_190521.jpg\n'
    ),
    'image_class_labels.txt': '1 1\n2 100\n3 101\n4 101\n5 200\n',
    'train_test_split.txt': '1 0\n2 1\n3 0\n4 1\n5 0\n',
}
SOP = {
    'Ebay_train.txt': (
        'image_id class_id super_class_id path\n'
        '1 1 1 bicycle_final/111085122871_0.JPG\n'
        '2 1 1 bicycle_final/111085122871_1.JPG\n'
    ),
    'Ebay_test.txt': (
        'image_id class_id super_class_id path\n'
        '59552 11319 1 bicycle_final/111265328556_0.JPG\n'
        '59553 11319 1 bicycle_final/111265328556_1.JPG\n'
        '59554 11320 12 table_final/111265328557_0.JPG\n'
    ),
}
INSHOP_PARTITION = (
    '4\n'
    'image_name item_id evaluation_status\n'
    'img/WOMEN/Dresses/id_00000002/02_1_front.jpg                            id_00000002 train\n'
    'img/WOMEN/Dresses/id_00000002/02_2_side.jpg                             id_00000002 train\n'
    'img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg                     id_00000001 query\n'
    'img/WOMEN/Blouses_Shirts/id_00000001/02_3_back.jpg                      id_00000001 gallery\n'
)


def plant(root: Path, *names: str) -> Path:
    """Makes empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(root: Path, lists: dict[str, str]) -> Path:
    """Makes files with text."""
    for name, text in lists.items():
        plant(root, name)
        (root / name).write_text(text)
    return root


def listed(lists: dict[str, str], column: int) -> list[str]:
    """One column of all lists."""
    return [line.split()[column] for text in lists.values() for line in text.splitlines()]


def msmt17(root: Path, train: str = 'train', test: str = 'test') -> Path:
    write(root, MSMT17_LISTS)
    for name, text in MSMT17_LISTS.items():
        folder = train if name in {'list_train.txt', 'list_val.txt'} else test
        plant(root, *(f'{folder}/{line.split()[0]}' for line in text.splitlines()))
    return root


def cub200(root: Path) -> Path:
    return plant(write(root, CUB200), *(f'images/{line.split()[1]}' for line in CUB200['images.txt'].splitlines()))


def sop(root: Path) -> Path:
    return plant(write(root, SOP), *(path for path in listed(SOP, 3) if path != 'path'))


def inshop(root: Path, partition: str = 'Eval/list_eval_partition.txt', images: str = 'Img') -> Path:
    write(root, {partition: INSHOP_PARTITION})
    return plant(root, *(f'{images}/{line.split()[0]}' for line in INSHOP_PARTITION.splitlines()[2:]))


def labels(samples, root):
    """Path, identity and camera of each sample."""
    return [(s.image.relative_to(root).as_posix(), s.identity, s.camera) for s in samples]
