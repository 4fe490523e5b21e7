"""Changed tests in languages with braces: which lines change, and under which names."""

import dataclasses

import pytest

from swebench_trainer.grading.counter.changes import proposed_changes
from swebench_trainer.types import Instance, Strength

MOCHA = """\
describe('Keys', () => {
	// it('should be ignored', () => {
	describe('mget', () => {
		const re = /it('no', {/g;

		it('should return null if key doesn\\'t exist', async () => {
			const data = await db.mget(['a', 'b'], { limit: 7 });
			assert.deepStrictEqual(data, [null, 'found']);
			assert.strictEqual(db.size(3), 2, 'the size');
			assert.notEqual(db.size(4), 5);
		});

		it.skip('should be left out', () => { assert.equal(a, 6); });

		it('should work', function (done) {
			expect(`in ${x} {`).to.equal('out');
			expect(y).to.not.equal('other');
			expect(z).toBe(true);
		});
	});
});
"""
GO = """\
package box

func TestArea(t *testing.T) {
	got := Area(3, 4) // func TestNo(t *testing.T) {
	if got != 12 {
		t.Errorf("Area = %d, want %d", got, 12)
	}
	if err := check(5); err != nil {
		t.Fatal("{")
	}
	assert.Equal(t, "a\\tb", Name(6))
	assert.Equal(t, Area(1), Area(2))
	require.NotEqual(t, 7, got)
}

func TestTable(t *testing.T) {
	for _, tt := range []struct{ in, want int }{{1, 2}} {
		t.Run("one", func(t *testing.T) {
			if Area(tt.in) != 3 {
				t.Fail()
			}
		})
	}
}
"""
RUST = """\
mod tests {
    use super::*;

    #[test]
    fn joins<'a>() {
        assert_eq!(skipped(), 1);
    }

    #[test]
    fn splits() {
        let c = '"'; // assert_eq!(c, 'x')
        assert_eq!(split("a b", 2), vec!["a", "b"], "message {}", 4);
        assert_eq!("done".to_string(), finish(3));
        assert_ne!(split("c"), 5);
    }

    #[test]
    #[should_panic]
    fn panics() {
        assert_eq!(split("d"), 6);
    }
}
"""
JAVA = """\
class BoxTest {
    @Before public void prepare() { assertEquals(1, size()); }

    @Test
    @DisplayName("area")
    public void area() throws Exception {
        assertEquals(12, box.area(3));
        assertEquals(1.5, box.ratio(4), 0.1);
        assertThat(box.name(5)).isEqualTo("wide \\"box\\"");
        assertThat(box.name()).isNotEqualTo("no");
    }

    @Test(expected = Error.class)
    public void fails() {
        assertEquals(6, box.area(7));
    }
}
"""

CASES = {
    "mocha": (
        "test/keys.js",
        MOCHA,
        [
            "test/keys.js | Keys mget should return null if key doesn't exist",
            "test/keys.js | Keys mget should work",
            "test/keys.js | Keys mget should be left out",
        ],
        {8, 9, 16, 18},
        {6, 15},
    ),
    "go": ("box/area_test.go", GO, ["TestArea", "TestTable"], {5, 11}, {3, 16}),
    "rust": (
        "src/box.rs",
        RUST,
        ["tests::joins", "box::tests::splits", "box::tests::panics"],
        {12, 13},
        {10},
    ),
    "java": (
        "src/test/java/o/BoxTest.java",
        JAVA,
        ["o.BoxTest.area", "o.BoxTest.fails", "o.OtherTest.area"],
        {7, 9},
        {6},
    ),
}


def instance_of(path, source, names):
    lines = source.rstrip("\n").split("\n")
    patch = (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n"
        f"+++ b/{path}\n@@ -0,0 +1,{len(lines)} @@\n"
        + "".join(f"+{line}\n" for line in lines)
    )
    script = f"git apply - <<'EOF_1'\n{patch}EOF_1\n: '>>>>> Start Test Output'\nrun\n"
    return Instance(
        *("o__box-1", "o/box", "0123456", "The area is wrong.", ""),
        test_patch=patch,
        eval_script=script,
        FAIL_TO_PASS=tuple(names),
    )


def changed(instance, change):
    """The changed lines by number, without the header of the script."""
    before, after = (i.split("\n") for i in (instance.eval_script, change.eval_script))
    assert len(before) == len(after)
    return {
        at - 5: new[1:]
        for at, (old, new) in enumerate(zip(before, after, strict=True))
        if old != new
    }


def changes_of(instance, strength):
    return [c for c in proposed_changes(instance) if c.strength is strength]


@pytest.mark.parametrize("language", CASES)
def test_expected_literals_change(language):
    path, source, names, expected, _ = CASES[language]
    instance = instance_of(path, source, names)
    found = [changed(instance, c) for c in changes_of(instance, Strength.EXPECTATION)]
    assert {number for lines in found for number in lines} == expected


@pytest.mark.parametrize("language", CASES)
def test_statements_fail_behind_the_brace_of_a_test(language):
    path, source, names, _, expected = CASES[language]
    instance = instance_of(path, source, names)
    changes = changes_of(instance, Strength.SABOTAGE)
    found = [changed(instance, change) for change in changes]
    assert {number for lines in found for number in lines} == expected
    for change, lines in zip(changes, found, strict=True):
        assert len(change.tests) == len(lines)
        assert all("{ " in line and line.endswith(";") for line in lines.values())


@pytest.mark.parametrize("language", CASES)
def test_new_tests_stand_in_empty_lines_and_have_known_names(language):
    path, source, names, *_ = CASES[language]
    instance = instance_of(path, source, names)
    lines = source.split("\n")
    canaries = changes_of(instance, Strength.CANARY)
    assert canaries
    for change in canaries:
        ((number, _),) = changed(instance, change).items()
        assert not lines[number - 1].strip()
        (name,) = change.tests
        assert name not in names


def test_failing_statements_are_in_the_style_of_the_test():
    path, source, names, *_ = CASES["mocha"]
    instance = instance_of(path, source, names)
    change = changes_of(instance, Strength.SABOTAGE)[0]
    first, second = (changed(instance, change)[number] for number in (6, 15))
    assert "assert.equal(" in first
    assert "expect(" in second


def test_a_title_that_is_not_unique_is_left_alone():
    path, source, _, *_ = CASES["mocha"]
    names = ["other.js | Keys mget should work", "more.js | Keys mget should work"]
    instance = instance_of(path, source, names)
    assert changes_of(instance, Strength.SABOTAGE) == []
    own = dataclasses.replace(
        instance, PASS_TO_PASS=("test/keys.js | Keys mget should work",)
    )
    assert changes_of(own, Strength.SABOTAGE) == []
