"""Which names are ignored."""

from __future__ import annotations

import pytest

from nst_daemon.intake.ignore import ignored, is_litter

PARTIAL = [
    "dog.jpg.part", "dog.jpg.crdownload", "Unconfirmed 12345.crdownload", "dog.jpg.download", "dog.jpg.opdownload",
    "dog.jpg.partial", ".dog.jpg.Xy12Ab", "dog.jpg.filepart", "dog.jpg.aria2", ".syncthing.dog.jpg.tmp",
    "~syncthing~dog.jpg.tmp", "dog.sync-conflict-20260101-120000-ABCDEFG.jpg", ".in.dog.jpg",
    ".pureftpd-upload.5a.15.1", "dog.jpg.!ut", "dog.jpg.!qB", "dog.jpg.tmp", "dog.jpg.swp", ".dog.jpg.swp", "4913",
    "dog.jpg~", "#dog.jpg#", ".#dog.jpg", "dog.jpg.bak", "~$dog.docx", ".~lock.dog.jpg#",
]  # fmt: skip
LITTER = [
    ".DS_Store", "._dog.jpg", ".Spotlight-V100", "__MACOSX", "Icon\r", "Thumbs.db", "ehthumbs.db", "desktop.ini",
    "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".nfs00000000012", ".stfolder",
    ".Trash-1000", ".nst-daemon", ".snapshot", "@tmp",
    "@Recycle", "dog.jpg@SynoEAStream", "dog.jpg.rclone_chunk.001", "dog.jpg.!sync", "dog.jpg:com.apple.quarantine",
    "Thumbs.db:encryptable", "thumbs.db\uf03aencryptable", "ehthumbs_vista.db", "Thumbs.db_encryptable",
    "dog.jpg.sb-1a2b3c4d-Ab12Cd", "dog.jpg:$DATA", "dog.jpg_Zone.Identifier",
]  # fmt: skip
SIDECARS = [
    "dog.xmp", "dog.jpg.xmp", "DOG.CR2.XMP", "IMG_1.AAE", "dog.jpg.pp3", "dog.jpg.dop", "MVI_1.THM", "dog.jpg.cos",
    "dog.jpg.json", "dog.JPG(1).json", "dog.jpg.supplemental-metadata.json", "dog.jpg.supplemental-metada.json",
    "dog.jpg.supplemental-metadata(2).json", "metadata.json", "a_long_name.JP.su(1).json",
    "dog.s.json", "picasa.ini", "Shop.url", "Photo.lnk", "dog.vrd",
]  # fmt: skip
WANTED = [
    "dog.jpg", "dog.content.jpg", "partial.jpg", "temp.png", "in.jpg", "part.jpg", "lock.jpg", "a~b.jpg", "#1.jpg",
    "12:30.jpg", "dog.json", "dog.content.json", "notes.txt", "dog.yaml", "dog.jpg.nextcloud", "dog.jpg.icloud",
    "xmp.jpg", "49131.jpg", "dog part 1.jpg", "icon.png", "download.jpg", "$100.jpg", "@home.jpg",
    "thumbs.dbx.png", "Thumbs.db2.jpg", "ehthumbs-old.png", "thumbs.jpg",
]  # fmt: skip


@pytest.mark.parametrize("name", PARTIAL + LITTER + SIDECARS)
def test_temporary_files_and_sidecars_are_ignored(name: str) -> None:
    """Names of unfinished transfers, of files that systems create and of sidecars are ignored."""
    assert ignored(name)


@pytest.mark.parametrize("name", SIDECARS)
def test_folders_named_like_sidecars_are_not_ignored(name: str) -> None:
    """Sidecars are files: a folder or a style with such a name is looked at."""
    assert not ignored(name, folder=True)


@pytest.mark.parametrize("name", PARTIAL + LITTER)
def test_temporary_folders_are_ignored(name: str) -> None:
    """Folders with names of unfinished transfers, and those that systems create, are ignored."""
    assert ignored(name, folder=True)


@pytest.mark.parametrize("name", WANTED)
def test_similar_names_are_not_ignored(name: str) -> None:
    """Names that only resemble those are not ignored, and their files are not removed with a folder."""
    assert not ignored(name)
    assert not is_litter(name)
