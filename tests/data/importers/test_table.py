"""TSV and CSV tables: Common Voice and others, and the faults a user meets."""

import csv

import pytest

# The header of Common Voice 17; its tables are written without quoting.
COMMON_VOICE = (
    "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\t"
    "accents\tvariant\tlocale\tsegment\n"
)


def common_voice_row(client, path, sentence):
    return f"{client}\t{path}\t9f\t{sentence}\t\t2\t0\t\t\t\t\ten\t\n"


def test_common_voice_folder_keeps_its_sets(make_audio, run, table):
    folder = make_audio(*(f"cv/clips/common_voice_en_{i}.mp3" for i in (1, 2, 3, 4))) / "cv"
    rows = [
        ("ab12", "common_voice_en_1.mp3", '"Stop!" she said.'),
        ("ab12", "common_voice_en_2.mp3", 'It’s a 3" nail.'),
        ("cd34", "common_voice_en_3.mp3", "Été  comme hiver."),
        ("ef56", "common_voice_en_4.mp3", '"Unclosed'),
    ]
    for name, chosen in (("train", rows[:2]), ("dev", rows[2:3]), ("test", rows[3:])):
        lines = COMMON_VOICE + "".join(common_voice_row(*row) for row in chosen)
        (folder / f"{name}.tsv").write_text(lines, encoding="utf-8")
    (folder / "validated.tsv").write_text("not read")
    out = run(folder, "--text_case", "lower", "--strip_punctuation")
    assert "read as tsv" in out and "train: 2 utterances, 1 speakers, 7 words" in out
    assert table("train/text") == {
        "ab12-common_voice_en_1": "stop she said",
        "ab12-common_voice_en_2": "it's a 3 nail",
    }
    assert table("dev/text") == {"cd34-common_voice_en_3": "été comme hiver"}
    assert table("test/text") == {"ef56-common_voice_en_4": "unclosed"}
    clip = folder / "clips" / "common_voice_en_1.mp3"
    assert table("train/wav.scp")["ab12-common_voice_en_1"] == str(clip)
    assert table("train/spk2utt") == {"ab12": "ab12-common_voice_en_1 ab12-common_voice_en_2"}


def test_csv_module_writes_what_is_read(make_audio, run, table, tmp_path):
    """Quoting, a line end in a field, a byte order mark and Windows line ends."""
    make_audio("a/1.wav", "a/2.wav")
    with open(tmp_path / "t.csv", "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["File", "Text", "Speaker"])
        writer.writerow(["a/1.wav", 'one, "two"\nthree', "Ann Lee"])
        writer.writerow(["a/2.wav", " four ", "Ann Lee"])
    run(tmp_path / "t.csv")
    assert table("text") == {"Ann_Lee-a-1": 'one, "two" three', "Ann_Lee-a-2": "four"}
    assert set(table("utt2spk").values()) == {"Ann_Lee"}


def test_segments_of_long_recordings(make_audio, run, table, tmp_path):
    make_audio("talk.wav")
    (tmp_path / "t.csv").write_text(
        "audio,start,end,duration,text\n"
        "talk.wav,0,1.5,,hello\ntalk.wav,1.5,,2.25,my\ntalk.wav,3.75,,,friends\n"
    )
    out = run(tmp_path / "t.csv")
    first, second, third = sorted(table("segments"))
    assert first == "talk-0000000-0001500"
    assert table("segments") == {
        first: f"{first} 0.0 1.5",
        second: f"{first} 1.5 3.75",
        third: f"{first} 3.75 -1",
    }
    assert table("wav.scp") == {first: str(tmp_path / "talk.wav")}
    assert "0.001 hours (of 2 whose length is given), 3 utterances without a speaker's name" in out


def test_named_columns_and_audio_root(make_audio, run, table, tmp_path):
    make_audio("far away/x 1.wav")
    (tmp_path / "t.tsv").write_text("clip\twho\tname\tutt\tsaid\nx 1.wav\t7\tA\tbig one\tyes\n")
    columns = ["--audio_column", "clip", "--text_column", "said", "--speaker_column", "who"]
    run(tmp_path / "t.tsv", *columns, "--id-column", "utt", "--audio_root", tmp_path / "far away")
    assert table("text") == {"7-big_one": "yes"}
    assert table("wav.scp") == {"7-big_one": str(tmp_path / "far away" / "x 1.wav")}


def test_a_path_above_the_table_is_the_users_own(make_audio, run, table, tmp_path):
    make_audio("audio/1.wav")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "t.csv").write_text("path,text\n../audio/1.wav,yes\n")
    run(tmp_path / "t" / "t.csv")
    assert table("wav.scp") == {"1": str(tmp_path / "t" / ".." / "audio" / "1.wav")}


def test_set_column(make_audio, run, table, tmp_path):
    make_audio("1.wav", "2.wav")
    (tmp_path / "t.csv").write_text("path,text,part\n1.wav,one,train\n2.wav,two,validation\n")
    run(tmp_path / "t.csv", "--set_column", "part")
    assert table("train/text") == {"1": "one"} and table("dev/text") == {"2": "two"}


FAULTS = {  # the table, what the line says
    "columns": (
        "fil,txt\n1.wav,a\n",
        ":1: no column for audio (did you mean 'fil'?), it has: fil, txt; name it: --audio_column",
    ),
    "no text column": ("path,said\n1.wav,a\n", ":1: no column for text, it has: path, said"),
    "missing audio": (
        'path,text\n1.wav,"a\nb"\n\n9.wav,c\n',
        ":5: no such file '{root}/9.wav', expected audio",
    ),
    "fields": ("path,text\n1.wav,a,b\n", ":2: 3 fields, the header row has 2: path | text"),
    "quote": ('path,text\n1.wav,"a\n2.wav,b\n', ":2: unexpected end of data in the row that ends"),
    "negative": ("path,text,duration\n1.wav,a,-2\n", ":2: duration '-2', expected seconds from 0"),
    "no number": ("path,text,start\n1.wav,a,soon\n", ":2: start 'soon', expected seconds from 0"),
    "infinite": ("path,text,end\n1.wav,a,inf\n", ":2: end 'inf', expected seconds from 0"),
    "order": ("path,text,start,end\n1.wav,a,3,2\n", ":2: from 3 s to 2 s, expected an end after"),
    "twice": (
        "path,text\n1.wav,a\n2.wav,b\n1.wav,c\n",
        ":4: utterance id '1' is that of {table}:2 too",
    ),
    "column twice": ("path,text,text\n1.wav,a,b\n", ":1: column 'text' twice in the header row"),
    "no rows": ("path,text\n", ": no row below the header"),
    "empty": ("", ": empty file, expected a header row"),
    "pipe": ("path,text\nsox x.wav -t wav - |,a\n", ":2: pipe 'sox x.wav -t wav - |', expected"),
    "url": ("path,text\nhttps://a.org/1.wav,a\n", ":2: URL 'https://a.org/1.wav', expected"),
    "no path": ("path,text\n,a\n", ":2: audio '', expected the path of an audio file"),
    "two speakers": (
        "path,text,speaker\n1.wav,a,Ann Lee\n2.wav,b,Ann_Lee\n",
        ":3: speaker 'Ann_Lee' would be named 'Ann_Lee' as 'Ann Lee' is, at {table}:2",
    ),
    "semicolons": ("path;text\n1.wav;a\n", ":1: columns parted by ';' in the header row, expected"),
    "latin1": ("path,text\n1.wav,caf\xe9\n", ":2: byte 0xe9 is not UTF-8"),
    "all empty": ("path,text\n1.wav,  \n", ": no utterance left: 1 without words, first"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_file_and_line(fault, make_audio, run, tmp_path):
    make_audio("1.wav", "2.wav")
    path = tmp_path / "t.csv"
    path.write_text(FAULTS[fault][0], encoding="latin1")
    expected = FAULTS[fault][1].format(root=tmp_path, table=path)
    assert f"error: {path}{expected}" in run(path, code=2)


def test_other_faults(make_audio, run, tmp_path):
    make_audio("1.wav")
    path = tmp_path / "t.tsv"
    path.write_text("path\ttext\n1.wav\ta\n", encoding="utf-16")
    assert f"{path}:1: UTF-16, expected UTF-8; convert it: iconv" in run(path, code=2)
    path.write_text("path\ttext\n1.wav\ta\n")
    assert "no column 'who', it has: path, text" in run(path, "--speaker_column", "who", code=2)
    assert "(did you mean 'text'?)" in run(path, "--text_column", "texts", code=2)
    (tmp_path / "1.wav").write_bytes(b"")
    assert f"{path}:2: empty file '{tmp_path}/1.wav'" in run(path, code=2)
    path.write_text('path\ttext\n1.wav\t"a\tb"\n')
    assert "3 fields, the header row has 2" in run(path, code=2)
    assert "--audio_root /nowhere: no such folder" in run(path, "--audio_root", "/nowhere", code=2)
    (tmp_path / "a.tsv").write_text("path\ttext\n")
    err = run(tmp_path, "--format", "tsv", code=2)
    assert "no train.tsv in this folder, it has: a.tsv, t.tsv; give the path of one table" in err


def test_tsv_with_quoting(make_audio, run, table, tmp_path):
    make_audio("1.wav")
    (tmp_path / "t.tsv").write_text('path\ttext\n1.wav\t"a ""b"" c"\n')
    run(tmp_path / "t.tsv", "--quoting", "csv")
    assert table("text") == {"1": 'a "b" c'}


def test_missing_audio_is_counted_when_asked(make_audio, run, table, tmp_path):
    make_audio("0.wav")
    rows = "".join(f"{i}.wav,word\n" for i in range(13))
    (tmp_path / "t.csv").write_text(f"path,text\n{rows}")
    out = run(tmp_path / "t.csv", "--skip_missing")
    assert "left out 12 with no such file:\n" in out
    assert out.count(f"    {tmp_path}/t.csv:") == 10 and "… and 2 more" in out
    assert list(table("text")) == ["0"]
