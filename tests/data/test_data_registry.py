import pytest

from sfsc_timm.data import RetrievalData, Sample, list_data, load_data, register_data
from sfsc_timm.data._registry import _READERS


@pytest.fixture
def toy(tmp_path):
    def read(root, *, extra=1):
        """Reader of a data set that another package adds."""
        samples = [Sample(root / f'{i}.jpg', extra) for i in range(2)]
        return RetrievalData('toy', [], samples, samples, cameras=False, shared=True)

    register_data('toy')(read)
    yield read
    del _READERS.makers['toy']


def test_lists_the_data_sets_that_come_with_the_package():
    assert {'folder', 'glyphs'} <= set(list_data())
    assert list_data() == sorted(list_data())


def test_a_registered_reader_is_loaded_with_its_options(toy, tmp_path):
    assert 'toy' in list_data()
    data = load_data('toy', str(tmp_path), extra=3)
    assert data.query[0].image == tmp_path / '0.jpg'
    assert data.query[0].identity == 3


def test_names_are_registered_once(toy):
    assert register_data('toy')(toy) is toy
    with pytest.raises(ValueError, match="'toy' is already registered"):
        register_data('toy')(lambda root: None)


@pytest.mark.parametrize(
    'arguments,options,message',
    [
        (('marekt',), {}, "name must be one of .*folder.*, got 'marekt'"),
        (('toy',), {}, 'root is missing'),
        (('glyphs', '.'), {}, 'root must be left out'),
        (('toy', '.'), {'extr': 1}, "no option 'extr'; its options are: extra"),
    ],
)
def test_refuses_bad_calls(toy, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        load_data(*arguments, **options)
