"use strict";
(() => {
  const of = (id) => document.getElementById(id);

  const enter = async (token) => {
    of("wrong").textContent = "";
    try {
      const answer = await fetch("sign-in", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ token }),
      });
      if (answer.ok) location.replace("./");
      else of("wrong").textContent = (await answer.json()).error;
    } catch {
      of("wrong").textContent = "eventkit ui does not answer: does it still run?";
    }
  };

  // A token in the address stands behind #, which no server and no log gets; it is taken out of the history besides.
  const brought = decodeURIComponent(location.hash.slice(1));
  if (brought) {
    history.replaceState(null, "", location.pathname);
    enter(brought);
  }
  of("form").addEventListener("submit", (event) => {
    event.preventDefault();
    enter(of("token").value.trim());
  });
})();
