"""Four rows of a table, as lines of a file; `conftest.write` writes them."""

HEADER = "id,split,text,image,label"
ROWS = [
    "a,train,good day,images/0.png,1",
    "b,train,bad day,images/1.png,0",
    "c,dev,fine,images/0.png,1",
    "d,Test,awful,images/1.png,0",
]
