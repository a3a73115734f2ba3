(function(){
"use strict";
var root=document.documentElement,button=document.getElementById("theme");
function dark(){var t=root.getAttribute("data-theme");return t?t==="dark":matchMedia("(prefers-color-scheme: dark)").matches}
button.hidden=false;
button.addEventListener("click",function(){root.setAttribute("data-theme",dark()?"light":"dark")});
var data=JSON.parse(document.getElementById("data").textContent),plots=[].slice.call(document.querySelectorAll(".plot[data-c]"));
function show(v,unit){
if(v===null||v===undefined)return "\u2013";
if(unit==="ms")return v>=1000?(v/1000).toFixed(2)+" s":v>=100?v.toFixed(0)+" ms":v.toFixed(2)+" ms";
if(unit==="%")return (v*100).toFixed(1)+" %";
return (v>=100?v.toFixed(0):v>=10?v.toFixed(1):v.toFixed(2)).replace(/\.0+$/,"")+(unit?" "+unit:"")}
function clock(i){var a=data.at[i],b=a+data.step;return data.step>1?a+" to "+b+" s":"second "+a}
var at=-1;
function move(i,from){
i=Math.max(0,Math.min(data.at.length-1,i));at=i;
plots.forEach(function(p){
var cur=p.querySelector(".cur"),tip=p.querySelector(".tip"),x=(i+.5)/data.at.length*100;
cur.style.display="block";cur.style.left=x+"%";
if(p!==from){tip.style.display="none";return}
var c=data.charts[p.dataset.c],text=[clock(i)];
tip.textContent="";
var head=document.createElement("b");head.textContent=clock(i);tip.appendChild(head);
c.s.forEach(function(s){
if(c.stack&&!s.v[i])return;
var row=document.createElement("div"),n=document.createElement("span"),v=document.createElement("span");
n.textContent=s.n;v.textContent=show(s.v[i],c.u);row.appendChild(n);row.appendChild(v);tip.appendChild(row);
text.push(s.n+" "+show(s.v[i],c.u))});
tip.style.display="block";
if(x>55){tip.style.left="auto";tip.style.right=(100-x)+"%";tip.style.margin="0 10px 0 0"}else{tip.style.right="auto";tip.style.left=x+"%";tip.style.margin="0 0 0 10px"}
document.getElementById("said").textContent=text.join(", ")})}
function hide(){plots.forEach(function(p){p.querySelector(".cur").style.display="none";p.querySelector(".tip").style.display="none"})}
plots.forEach(function(p){
p.tabIndex=0;
p.addEventListener("pointermove",function(e){var r=p.getBoundingClientRect();move(Math.floor((e.clientX-r.left)/r.width*data.at.length),p)});
p.addEventListener("pointerleave",hide);
p.addEventListener("blur",hide);
p.addEventListener("focus",function(){move(at<0?0:at,p)});
p.addEventListener("keydown",function(e){
var to={ArrowLeft:at-1,ArrowRight:at+1,Home:0,End:data.at.length-1,PageUp:at-10,PageDown:at+10}[e.key];
if(e.key==="Escape"){hide();return}
if(to!==undefined){move(to,p);e.preventDefault()}})});
[].forEach.call(document.querySelectorAll("th[aria-sort]"),function(th){
th.tabIndex=0;
function sort(){
var table=th.closest("table"),body=table.tBodies[0],col=th.cellIndex,up=th.getAttribute("aria-sort")==="descending";
[].forEach.call(th.parentNode.cells,function(h){if(h.hasAttribute("aria-sort"))h.setAttribute("aria-sort","none")});
th.setAttribute("aria-sort",up?"ascending":"descending");
function key(r){var c=r.cells[col];return c.dataset.v!==undefined?parseFloat(c.dataset.v):c.textContent}
[].slice.call(body.rows).sort(function(a,b){var x=key(a),y=key(b),d=x<y?-1:x>y?1:0;return up?d:-d}).forEach(function(r){body.appendChild(r)})}
th.addEventListener("click",sort);
th.addEventListener("keydown",function(e){if(e.key==="Enter"||e.key===" "){sort();e.preventDefault()}})});
document.documentElement.setAttribute("data-ready","yes");
})();
