"""Events of users and items in the order of time."""

from chinchilla_jax.tasks.read import read


def test_events_out_of_order_and_tied(tmp_path):
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (tmp_path / "a.inter").write_text(head + "u\tc\t1\t9\nv\tx\t1\t1\nu\tb\t1\t5\nu\ta\t1\t5\n")
    (tmp_path / "b.csv").write_text("user,item,timestamp\nu,c,9\nu,b,5\nu,a,5\n")
    for name in ("a.inter", "b.csv"):
        assert read([tmp_path / name]).records[0].items == ("b", "a", "c")
