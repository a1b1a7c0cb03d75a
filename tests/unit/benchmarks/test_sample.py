from __future__ import annotations

import hashlib

import yaml

from benchmarks import sample
from shmconf import codec


def test_the_sample_has_the_sizes_that_its_figures_are_told_with() -> None:
    yaml_bytes, packed_bytes = sample.check_sizes()
    assert 2_400_000 * 0.95 <= yaml_bytes <= 2_400_000 * 1.05
    assert 1_700_000 * 0.95 <= packed_bytes <= 1_700_000 * 1.05


def test_the_sample_has_10_000_services_of_8_fields_and_the_scalar() -> None:
    tree = sample.tree()
    assert len(tree["services"]) == 10_000
    assert {len(service) for service in tree["services"].values()} == {8}
    assert tree["db"]["pool"]["size"] == sample.SCALAR_VALUE
    assert sample.SCALAR_PATH == "db.pool.size"


def test_the_yaml_is_the_tree() -> None:
    tree = sample.tree(200)
    assert yaml.safe_load(sample.yaml_text(tree)) == tree


def test_it_is_the_same_on_every_machine() -> None:
    digest = hashlib.sha256(sample.yaml_text(sample.tree()).encode()).hexdigest()
    assert digest == "1cec3a0dd7483908a65ebab85cebe15db5f327e9714533fd3b6a29167c8f2c05"


def test_versions_differ_in_one_value_alone() -> None:
    versions = sample.Versions.of(300)
    one, other = codec.unpack(versions.payload(100_000)), codec.unpack(versions.payload(2**32 - 1))
    services, name, field = versions.path.split(".")
    assert one[services][name].pop(field) == 100_000
    assert other[services][name].pop(field) == 2**32 - 1
    assert one == other
    assert len(one["services"]) == 300


def test_a_payload_of_a_wanted_size_comes_out_near_it() -> None:
    size = len(codec.pack(sample.tree(sample.services_for(50_000))))
    assert 45_000 <= size <= 55_000
