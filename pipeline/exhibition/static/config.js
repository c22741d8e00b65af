// What the server tells the page when it is loaded.

export const config = JSON.parse(document.getElementById("config").textContent);
export const csrf = document.querySelector('meta[name="csrf"]').content;
