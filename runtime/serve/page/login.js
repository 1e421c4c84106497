// The form for the token: say so where the last one was wrong.
document.getElementById("failed").hidden = !location.search.includes("failed");
